// SPDX-License-Identifier: Apache-2.0
#include "launch/system/check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace neoloom::launch {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

RankChecks rank(int number, const std::string& host, const Check& check) { return {number, host, {check}}; }

const Check kWell{"open files", Health::kOk, "at most 4096"};
const Check kLow{"open files", Health::kWarn, "at most 64", "ulimit -n 4096"};

TEST(Checks, WhatAllRanksFoundAlikeIsOneLine) {
  const std::vector<RankChecks> all = {rank(0, "a", kWell), rank(1, "b", kWell)};
  const std::vector<Check> merged = merge_checks(all);
  ASSERT_THAT(merged, SizeIs(1));
  EXPECT_THAT(merged[0].ranks, IsEmpty());
  EXPECT_EQ(text_of(merged, all), "  ok    open files: at most 4096\n");
}

TEST(Checks, RanksThatDifferAreNamedBelowTheMost) {
  const std::vector<RankChecks> all = {rank(0, "a", kLow), rank(1, "b", kWell), rank(2, "b", kWell), rank(3, "c", kLow),
                                       rank(4, "c", kWell)};
  EXPECT_EQ(text_of(merge_checks(all), all),
            "  ok    open files: at most 4096 (rank 1, 2, 4 on b, c)\n"
            "  warn  open files: at most 64 (rank 0, 3 on a, c)\n"
            "        -> ulimit -n 4096\n");
  const nlohmann::ordered_json json = json_of(merge_checks(all), all);
  EXPECT_EQ(json[1], nlohmann::ordered_json::parse(
                         R"({"name":"open files","state":"warn","text":"at most 64","remedy":"ulimit -n 4096",
                             "ranks":[0,3],"hosts":["a","c"]})"));
  EXPECT_FALSE(json[0].contains("remedy"));
}

TEST(Checks, ManyRanksAreCounted) {
  std::vector<RankChecks> all = {rank(0, "root", kWell)};
  for (int i = 1; i <= 20; ++i) all.push_back(rank(i, "host" + std::to_string(i), kLow));
  EXPECT_THAT(
      text_of(merge_checks(all), all),
      testing::HasSubstr("(rank 1, 2, 3, 4, 5, 6, 7, 8 and 12 more on host1, host2, host3, host4, host5, host6, "
                         "host7, host8 and 12 more)"));
}

TEST(Checks, WhatMustAgreeFailsWhereItDiffers) {
  const auto program = [](const char* text) { return Check{"program", Health::kOk, text, "install one build", true}; };
  std::vector<RankChecks> all = {rank(0, "a", program("1")), rank(1, "b", program("1"))};
  EXPECT_EQ(merge_checks(all)[0].health, Health::kOk);
  all.push_back(rank(2, "c", program("2")));
  EXPECT_EQ(text_of(merge_checks(all), all),
            "  fail  program: 1 (rank 0, 1 on a, b)\n        -> install one build\n"
            "  fail  program: 2 (rank 2 on c)\n        -> install one build\n");
}

TEST(Checks, OneRanksOwnCheckNamesNoRank) {
  const std::vector<RankChecks> all = {rank(0, "a", kWell), {1, "b", {}}};
  EXPECT_THAT(merge_checks(all)[0].ranks, IsEmpty());
}

TEST(Checks, GoBetweenRanksWhole) {
  const RankChecks there = unpack_checks(pack(rank(3, "c", kLow)));
  EXPECT_EQ(there.rank, 3);
  EXPECT_EQ(there.host, "c");
  ASSERT_THAT(there.checks, SizeIs(1));
  EXPECT_EQ(there.checks[0].remedy, "ulimit -n 4096");
  EXPECT_EQ(there.checks[0].health, Health::kWarn);
}

}  // namespace
}  // namespace neoloom::launch
