// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/result_writer.h"

#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "runtime/core/error.h"
#include "tests/support/no_ranks.h"
#include "tests/support/scratch.h"

namespace neoloom::train {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kTotalSteps = 8;

checkpoint::State state_of(int64_t step) {
  checkpoint::State state;
  state.index = {{"lora_A", {4}, 0}};
  state.params = state.exp_avg = state.exp_avg_sq = {1, 2, 3, 4};
  state.step = step;
  state.identity = "{}";
  return state;
}

/// Writes into a folder of its own. An adapter is a folder with the first value of its parameters.
class Writing : public ::testing::Test {
 protected:
  ResultWriter& writer(bool keeps_best = false) {
    writer_ = std::make_unique<ResultWriter>(
        ResultWriterSetup{.output_dir = folder_.path(),
                          .result_folder = "adapter",
                          .config_file = "trainer_config: {}\n",
                          .save_total_limit = 2,
                          .keeps_best = keeps_best,
                          .total_steps = kTotalSteps,
                          .write_adapter =
                              [this](const at::Tensor& params, const std::string& folder, int64_t step) {
                                core::require(!fails_, core::ErrorKind::kOutput, "no space left");
                                folder_.write(std::filesystem::path(folder).filename().string() + "/value",
                                              std::to_string(params[0].item<float>()));
                                written_step_ = step;
                              }},
        reporter_, best_);
    return *writer_;
  }
  void best_at(int64_t step) {
    best_ = BestModel({.metric = "eval_loss", .greater_is_better = false, .data = ""}, /*keeps_params=*/true);
    best_.consider(step, {{"eval_loss", 0.5}}, at::full({4}, 7.0));
  }
  std::string adapter() const { return folder_.read("adapter/value"); }

  int64_t written_step_ = -1;  // of the adapter
  ScratchFolder folder_;
  support::NoRanks communicator_;
  Reporter reporter_{communicator_,
                     {.output_dir = folder_.path(),
                      .progress = "off",
                      .self = {},
                      .total_steps = kTotalSteps,
                      .peak_memory_bytes = [] { return int64_t{0}; },
                      .gather = [](const std::string& mine) { return std::vector<std::string>{mine}; },
                      .guard = {}}};
  BestModel best_;
  bool fails_ = false;
  const at::Tensor params_ = at::full({4}, 3.0);

 private:
  std::unique_ptr<ResultWriter> writer_;
};

TEST_F(Writing, KeepsAsManyCheckpointsAsAsked) {
  ResultWriter& out = writer();
  for (const int64_t step : {2, 4, 6}) out.save(step, [&] { return state_of(step); });
  EXPECT_TRUE(out.is_saved(6));
  const auto entries = checkpoint::Directory(folder_.path("checkpoints")).list();
  ASSERT_EQ(entries.size(), 2U);
}

TEST_F(Writing, AFailureToSaveIsTakenUpAgainAndToldAtTheStop) {
  ResultWriter& out = writer();
  out.save(2, [&] { return state_of(2); });
  out.save(4, []() -> checkpoint::State { core::fail(core::ErrorKind::kOutput, "the disk is full"); });
  EXPECT_TRUE(out.is_saved(2));
  EXPECT_THAT(out.unsaved_stop(4), AllOf(HasSubstr("step 4 of 8 could not be saved: the disk is full"),
                                         HasSubstr("There is a checkpoint of step 2")));
  out.save(5, [&] { return state_of(5); });
  EXPECT_EQ(out.unsaved_stop(5), "");
}

TEST_F(Writing, WithoutAnyCheckpointAStopSaysThatTheRunStartsOver) {
  EXPECT_THAT(writer().unsaved_stop(3), HasSubstr("There is no checkpoint either"));
}

TEST_F(Writing, TheResultIsTheLastState) {
  EXPECT_EQ(writer().write_result(params_, kTotalSteps, /*fresh=*/true), "");
  EXPECT_EQ(adapter(), std::to_string(3.0F));
  EXPECT_EQ(written_step_, kTotalSteps);
}

TEST_F(Writing, TheResultIsTheBestStateWhereAskedFor) {
  best_at(4);
  EXPECT_EQ(writer(/*keeps_best=*/true).write_result(params_, kTotalSteps, true), "");
  EXPECT_EQ(adapter(), std::to_string(7.0F));
  EXPECT_EQ(written_step_, 4);
}

TEST_F(Writing, WithoutABestModelTheLastStateIsWrittenUnlessAResultIsThere) {
  EXPECT_EQ(writer(true).write_result(params_, kTotalSteps, /*fresh=*/true), "");
  EXPECT_EQ(adapter(), std::to_string(3.0F));
  EXPECT_EQ(writer(true).write_result(at::full({4}, 9.0), kTotalSteps, /*fresh=*/false), "");
  EXPECT_EQ(adapter(), std::to_string(3.0F));
}

TEST_F(Writing, AResultThatCannotBeWrittenSaysWhatIsThere) {
  ResultWriter& out = writer();
  out.save(kTotalSteps, [] { return state_of(kTotalSteps); });
  fails_ = true;
  EXPECT_THAT(
      out.write_result(params_, kTotalSteps, true),
      AllOf(HasSubstr("all 8 steps are done"), HasSubstr("no space left"), HasSubstr("a checkpoint of step 8")));
}

TEST_F(Writing, SideProductsAreWrittenWhenTheyAreDue) {
  best_at(2);
  ResultWriter& out = writer(true);
  out.write_side_products(2);
  EXPECT_THAT(folder_.names(), Not(Contains("config.yaml")));
  out.config_is_due();
  out.best_is_due();
  out.write_side_products(2);
  EXPECT_THAT(folder_.names(), AllOf(Contains("config.yaml"), Contains("adapter-best")));
}

}  // namespace
}  // namespace neoloom::train
