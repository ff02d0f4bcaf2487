// SPDX-License-Identifier: Apache-2.0
#include "launch/system/placement.h"

#include <gtest/gtest.h>

#include <string_view>

namespace neoloom::launch {
namespace {

RankResources rank_with(const std::string& host, std::vector<int> cores, std::vector<std::string> gpus = {}) {
  return {host, std::move(cores), std::move(gpus), false};
}

TEST(GpuChoice, RanksOfANodeTakeItsGpusInOrder) {
  const std::vector<std::string> gpus{"a", "b", "c", "d"};
  const std::vector<RankResources> ranks(4, rank_with("n1", {0}, gpus));
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(choose_gpu(ranks, rank), rank);
}

TEST(GpuChoice, RanksDealtRoundRobinOverNodesCountOnTheirOwnNode) {
  const std::vector<RankResources> ranks{rank_with("n1", {0}, {"a", "b"}), rank_with("n2", {0}, {"a", "b"}),
                                         rank_with("n1", {0}, {"a", "b"}), rank_with("n2", {0}, {"a", "b"})};
  EXPECT_EQ(choose_gpu(ranks, 0), 0);
  EXPECT_EQ(choose_gpu(ranks, 1), 0);
  EXPECT_EQ(choose_gpu(ranks, 2), 1);
  EXPECT_EQ(choose_gpu(ranks, 3), 1);
}

TEST(GpuChoice, MoreRanksThanGpusIsRefusedNotShared) {
  const std::vector<RankResources> ranks(3, rank_with("n1", {0}, {"a", "b"}));
  EXPECT_EQ(choose_gpu(ranks, 2), -1);
}

TEST(GpuChoice, RanksThatEachSeeOnlyTheirOwnGpuTakeTheirFirst) {
  const std::vector<RankResources> ranks{rank_with("n1", {0}, {"a"}), rank_with("n1", {0}, {"b"})};
  EXPECT_EQ(choose_gpu(ranks, 0), 0);
  EXPECT_EQ(choose_gpu(ranks, 1), 0);
}

TEST(GpuChoice, TwoRanksThatSeeTheSameSingleGpuDoNotShareIt) {
  const std::vector<RankResources> ranks{rank_with("n1", {0}, {"a"}), rank_with("n1", {0}, {"a"})};
  EXPECT_EQ(choose_gpu(ranks, 1), -1);
}

TEST(ThreadCount, IsTheSmallestShareOfAnyNode) {
  const std::vector<RankResources> ranks{rank_with("big", {0, 1, 2, 3, 4, 5, 6, 7}), rank_with("small", {0, 1, 2, 3}),
                                         rank_with("big", {0, 1, 2, 3, 4, 5, 6, 7})};
  EXPECT_EQ(shared_thread_count(ranks), 4);
}

TEST(ThreadCount, IsOneWhenRanksOutnumberCores) {
  EXPECT_EQ(shared_thread_count(std::vector<RankResources>(5, rank_with("n", {0, 1}))), 1);
}

TEST(ThreadCount, RanksBoundToUnequalPartsGetNoMoreThanTheirOwnCores) {
  EXPECT_EQ(shared_thread_count({rank_with("n", {0}), rank_with("n", {1, 2, 3, 4, 5})}), 1);
  EXPECT_EQ(shared_thread_count({rank_with("n", {0, 1, 2}), rank_with("n", {3, 4, 5})}), 3);
}

TEST(Binding, IsTheUsersOnlyWhenAParameterSaysSo) {
  EXPECT_FALSE(binding_chosen_by_user([](core::Variable) -> std::string { return ""; }));
  EXPECT_TRUE(binding_chosen_by_user([](core::Variable variable) -> std::string {
    return std::string_view(variable.name()) == "OMPI_MCA_hwloc_base_binding_policy" ? "core" : "";
  }));
  EXPECT_FALSE(binding_chosen_by_user([](core::Variable variable) -> std::string {
    return std::string_view(variable.name()) == "OMPI_MCA_hwloc_base_binding_policy" ? "none" : "";
  }));
}

TEST(Binding, MappingRanksToNodesIsNotABindingButCoresPerRankIs) {
  EXPECT_FALSE(binding_chosen_by_user([](core::Variable variable) -> std::string {
    return std::string_view(variable.name()) == "OMPI_MCA_rmaps_base_mapping_policy" ? "ppr:2:node" : "";
  }));
  EXPECT_TRUE(binding_chosen_by_user([](core::Variable variable) -> std::string {
    return std::string_view(variable.name()) == "OMPI_MCA_rmaps_base_mapping_policy" ? "slot:PE=4" : "";
  }));
}

TEST(Binding, ByDefaultIsOffOnlyWhereTheParameterSaysNone) {
  EXPECT_FALSE(default_binding_is_off([](core::Variable) -> std::string { return ""; }));
  EXPECT_FALSE(default_binding_is_off([](core::Variable) -> std::string { return "core"; }));
  EXPECT_TRUE(default_binding_is_off([](core::Variable variable) -> std::string {
    return std::string_view(variable.name()) == "OMPI_MCA_hwloc_base_binding_policy" ? "none" : "";
  }));
}

}  // namespace
}  // namespace neoloom::launch
