// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/training_state.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/comm/collective_error.h"
#include "runtime/core/error.h"

namespace neoloom::train {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kElements = 32;
constexpr int64_t kStepsPerEpoch = 4;

model::ParameterLayout layout(const std::string& name = "lora_A") {
  model::ParameterLayout layout;
  layout.slots.push_back({.name = name, .shape = {4, 8}, .offset_elements = 0});
  layout.trainable_elements = layout.total_elements = kElements;
  return layout;
}

StepResult good(int64_t step, double loss) { return {.step = step, .loss = loss, .target_weight = 2}; }
StepResult skipped(int64_t step) { return {.step = step, .loss = std::nan(""), .target_weight = 2, .skipped = true}; }

TrainingState state_after_six_steps() {
  TrainingState state(kElements, at::kCPU, /*initial_loss_scale=*/1024.0);
  state.buffers.params.copy_(at::arange(kElements));
  state.buffers.exp_avg.fill_(0.25);
  state.buffers.exp_avg_sq.fill_(0.5);
  state.step = 6;
  for (int64_t step = 1; step <= 4; ++step) state.note(good(step, 2.0));
  state.history.remember({{"event", "train"}, {"step", 4}});
  state.history.reset();
  state.note(good(5, 3.0));
  state.note(skipped(6));
  return state;
}

TEST(History, TheLastEvaluationUpToAStepHasTheMembersOfAllItsSets) {
  History history;
  EXPECT_TRUE(history.evaluation_before(9).is_null());
  history.remember({{"event", "eval"}, {"step", 2}, {"eval_dev_loss", 3.0}});
  history.remember({{"event", "eval"}, {"step", 4}, {"eval_dev_loss", 2.0}});
  history.remember({{"event", "eval"}, {"step", 4}, {"eval_hard_loss", 5.0}});
  history.remember({{"event", "train"}, {"step", 5}});
  const nlohmann::json both = {{"event", "eval"}, {"step", 4}, {"eval_dev_loss", 2.0}, {"eval_hard_loss", 5.0}};
  EXPECT_EQ(history.evaluation_before(5), both);
  EXPECT_EQ(history.evaluation_before(3)["eval_dev_loss"], 3.0);
  EXPECT_FALSE(history.evaluation_before(3).contains("eval_hard_loss"));
  EXPECT_TRUE(history.evaluation_before(1).is_null());
}

TEST(TrainingState, GoesOnFromItsCheckpointAsIfItHadNotStopped) {
  const TrainingState before = state_after_six_steps();
  const checkpoint::State stored = before.to_checkpoint(layout(), kStepsPerEpoch, {{"best_judge", "any"}});
  TrainingState after(kElements, at::kCPU, 1024.0);
  after.restore({.state = stored, .path = "step-6.h5", .skipped = {}}, layout());
  EXPECT_EQ(after.step, 6);
  EXPECT_EQ(after.skipped_steps, 1);
  EXPECT_EQ(after.skipped_in_a_row, 1);
  EXPECT_EQ(after.loss_scale.value(), 512.0);
  EXPECT_TRUE(after.buffers.params.equal(before.buffers.params));
  EXPECT_TRUE(after.buffers.exp_avg.equal(before.buffers.exp_avg));
  EXPECT_TRUE(after.buffers.exp_avg_sq.equal(before.buffers.exp_avg_sq));
  const checkpoint::State again = after.to_checkpoint(layout(), kStepsPerEpoch, {{"best_judge", "any"}});
  EXPECT_EQ(again.history, stored.history);
  EXPECT_THAT(stored.history, HasSubstr(R"("events":[{"event":"train","step":4}])"));
  EXPECT_THAT(stored.history, HasSubstr(R"("best_judge":"any")"));
}

TEST(TrainingState, TheInitialParametersOfACheckpointComeBack) {
  TrainingState before = state_after_six_steps();
  before.initial_params = before.buffers.params.mul(0.5);
  const checkpoint::State stored = before.to_checkpoint(layout(), kStepsPerEpoch, nlohmann::json::object());
  TrainingState after(kElements, at::kCPU, 1024.0);
  after.restore({.state = stored, .path = "step-6.h5", .skipped = {}}, layout());
  EXPECT_TRUE(after.initial_params.equal(before.initial_params));
}

TEST(TrainingState, KnowsWhereInTheEpochItStands) {
  const checkpoint::State stored =
      state_after_six_steps().to_checkpoint(layout(), kStepsPerEpoch, nlohmann::json::object());
  EXPECT_EQ(stored.epoch, 1);
  EXPECT_EQ(stored.step_in_epoch, 2);
}

TEST(TrainingState, ACheckpointOfAnotherOptimizerIsRefused) {
  const checkpoint::State stored =
      state_after_six_steps().to_checkpoint(layout(), kStepsPerEpoch, nlohmann::json::object());
  for (const char* name : {"sgd", "lion", "adafactor", "adamw_8bit"}) {
    TrainingState state(kElements, at::kCPU, 1.0, optim::make_optimizer_options(name, ""), 12);
    try {
      state.restore({.state = stored, .path = "step-6.h5", .skipped = {}}, layout());
      FAIL() << "expected an error";
    } catch (const comm::CollectiveError& error) {
      EXPECT_EQ(error.kind(), core::ErrorKind::kCheckpoint);
      EXPECT_THAT(error.what(), HasSubstr("the optimizer state of adamw, and this run's is of "));
    }
  }
}

TEST(TrainingState, ACheckpointOfOtherTensorsIsRefused) {
  const checkpoint::State stored =
      state_after_six_steps().to_checkpoint(layout("other"), kStepsPerEpoch, nlohmann::json::object());
  TrainingState state(kElements, at::kCPU, 1.0);
  try {
    state.restore({.state = stored, .path = "step-6.h5", .skipped = {}}, layout());
    FAIL() << "expected an error";
  } catch (const comm::CollectiveError& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kCheckpoint);
    EXPECT_THAT(error.what(), HasSubstr("step-6.h5"));
  }
}

TEST(TrainingState, ADamagedHistoryIsRefused) {
  checkpoint::State stored = state_after_six_steps().to_checkpoint(layout(), kStepsPerEpoch, nlohmann::json::object());
  stored.history = R"({"events": 5})";
  TrainingState state(kElements, at::kCPU, 1.0);
  EXPECT_THROW(state.restore({.state = stored, .path = "step-6.h5", .skipped = {}}, layout()), core::Error);
}

TEST(TrainingState, CountsSkippedStepsInARow) {
  TrainingState state(kElements, at::kCPU, 1.0);
  state.note(skipped(1));
  state.note(skipped(2));
  EXPECT_EQ(state.skipped_in_a_row, 2);
  state.note(good(3, 1.0));
  EXPECT_EQ(state.skipped_in_a_row, 0);
  EXPECT_EQ(state.skipped_steps, 2);
}

TEST(History, TheMeanLossIsOfTheStepsThatHaveOne) {
  TrainingState state(kElements, at::kCPU, 1.0);
  state.note(good(1, 2.0));
  state.note({.step = 2, .loss = std::nan(""), .target_weight = 0});  // nothing to learn
  state.note(good(3, 4.0));
  EXPECT_EQ(state.history.mean_loss(), 3.0);
  state.history.reset();
  EXPECT_TRUE(std::isnan(state.history.mean_loss()));
}

TEST(LossScale, HalvesOnASkippedStepAndDoublesAfterManyGoodOnes) {
  LossScale scale(1024.0);
  scale.note(/*skipped=*/true);
  EXPECT_EQ(scale.value(), 512.0);
  for (int64_t step = 1; step < LossScale::kGrowthSteps; ++step) scale.note(false);
  EXPECT_EQ(scale.value(), 512.0);
  scale.note(false);
  EXPECT_EQ(scale.value(), 1024.0);
  EXPECT_EQ(scale.good_steps(), 0);
}

TEST(LossScale, StaysBetweenOneAndTheLargest) {
  LossScale scale(LossScale::kLargest);
  for (int64_t step = 0; step < LossScale::kGrowthSteps; ++step) scale.note(false);
  EXPECT_EQ(scale.value(), LossScale::kLargest);
  for (int step = 0; step < 40; ++step) scale.note(true);
  EXPECT_EQ(scale.value(), 1.0);
}

TEST(LossScale, OfOneNeverMoves) {
  LossScale scale(1.0);
  for (int64_t step = 0; step <= LossScale::kGrowthSteps; ++step) scale.note(false);
  EXPECT_FALSE(scale.moves());
  EXPECT_EQ(scale.value(), 1.0);
}

}  // namespace
}  // namespace neoloom::train
