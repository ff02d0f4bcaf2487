// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/step_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <new>

#include "runtime/core/error.h"
#include "tests/support/fixed_store.h"
#include "tests/support/no_ranks.h"
#include "tests/unit/model/random_model.h"

namespace neoloom::train {
namespace {

using model::testing::same_bits;
using ::testing::ElementsAre;

constexpr int64_t kSteps = 2;

std::shared_ptr<const data::TokenStore> store() {
  std::vector<std::vector<int32_t>> rows;
  for (size_t row = 0; row < 12; ++row) rows.emplace_back(3 + row, static_cast<int32_t>(row));
  return std::make_shared<support::FixedStore>(rows, /*causal=*/true);
}

/// Holds a tiny model, its state and what a step needs: micro-batches of two samples, three a step.
class Steps {
 public:
  explicit Steps(StepRunnerSetup setup = {}, int rank = 0, int world_size = 1)
      : model_(model::Model::create(
            model::testing::tiny_setup(model::Head::kCausalLm),
            model::testing::random_weights(model::testing::tiny_setup(model::Head::kCausalLm).config, at::kFloat))),
        state(model_->layout().total_elements, at::kCPU, 1.0),
        loader({.store = store(),
                .step_options = {.micro_batch_size = 2, .micro_batches_per_step = 3},
                .task = data::Task::kCausalLm,
                .rank = rank,
                .world_size = world_size,
                .total_steps = kSteps,
                .pack = [this](const model::Batch& batch) { return model_->pack(batch, at::kCPU); }}),
        runner(*model_, reducer(), make_host_update(update()), std::move(setup)) {
    state.buffers.params.copy_(model::testing::random_params(*model_));
  }

  /// Computes a step and returns the result of its update.
  StepResult step() {
    EXPECT_TRUE(runner.compute(loader, state, measure));
    runner.sum_over_ranks(measure);
    runner.update(state, measure);
    ++state.step;
    const StepResult result = runner.take_result();
    state.note(result);
    return result;
  }

 private:
  GradientReducer reducer() {
    return {make_gradient_sum({.n_elements = model_->layout().total_elements}), communicator_, {0}};
  }
  UpdateSetup update() const {
    UpdateSetup setup;
    setup.ranges = {{0, model_->layout().total_elements, true}};
    setup.learning_rate = 1e-2;
    setup.schedule = optim::make_schedule({.total_steps = kSteps});
    setup.total_steps = kSteps;
    return setup;
  }

  support::NoRanks communicator_;
  std::unique_ptr<model::Model> model_;

 public:
  TrainingState state;
  metrics::DeviceMeasure measure;
  MicroBatchLoader loader;
  StepRunner runner;
};

TEST(StepRunner, CountsWhatItComputed) {
  Steps steps;
  const StepResult result = steps.step();
  EXPECT_EQ(result.step, 1);
  EXPECT_GT(result.loss, 0.0);
  EXPECT_EQ(steps.measure.batches, 3);
  EXPECT_EQ(steps.measure.samples, 6);
  EXPECT_EQ(result.target_weight, steps.measure.tokens - steps.measure.samples) << "all but each sample's first token";
  EXPECT_GE(steps.measure.padded_tokens, steps.measure.tokens);
  EXPECT_GT(steps.measure.flops, 0.0);
}

TEST(StepRunner, TheSameStepsHaveTheSameBits) {
  Steps first, second;
  for (int64_t step = 0; step < kSteps; ++step) {
    EXPECT_EQ(first.step().loss, second.step().loss);
  }
  EXPECT_TRUE(same_bits(first.state.buffers.params, second.state.buffers.params));
}

TEST(StepRunner, TellsWhichSamplesItIsAboutToCompute) {
  std::vector<std::pair<int64_t, size_t>> told;
  StepRunnerSetup setup;
  setup.before_micro_batch = [&](int64_t step, const std::vector<int64_t>& samples) {
    told.emplace_back(step, samples.size());
  };
  Steps steps(setup);
  steps.step();
  EXPECT_THAT(told, ElementsAre(std::pair(1, 2), std::pair(1, 2), std::pair(1, 2)));
}

StepRunnerSetup without_memory_for_the_second(bool survives) {
  StepRunnerSetup setup;
  setup.survives_lack_of_memory = survives;
  setup.before_micro_batch = [count = 0](int64_t, const std::vector<int64_t>&) mutable {
    if (++count == 2) throw std::bad_alloc();
  };
  return setup;
}

TEST(StepRunner, ALackOfMemoryLeavesTheStateAsItWas) {
  Steps steps(without_memory_for_the_second(/*survives=*/true));
  const at::Tensor before = steps.state.buffers.params.clone();
  EXPECT_FALSE(steps.runner.compute(steps.loader, steps.state, steps.measure));
  steps.runner.abandon(steps.measure);
  EXPECT_TRUE(same_bits(steps.state.buffers.params, before));
  EXPECT_EQ(steps.runner.pending(), 0U);
}

TEST(StepRunner, ALackOfMemoryEndsTheRunUnlessAskedOtherwise) {
  Steps steps(without_memory_for_the_second(/*survives=*/false));
  try {
    steps.runner.compute(steps.loader, steps.state, steps.measure);
    FAIL() << "expected an error";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kDevice);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("trainer_config.auto_find_batch_size: true"));
  }
}

TEST(StepRunner, ARankWithoutAMicroBatchStillMakesTheStep) {
  Steps steps({}, /*rank=*/3, /*world_size=*/4);
  const StepResult result = steps.step();
  EXPECT_EQ(steps.measure.batches, 0);
  EXPECT_GT(result.target_weight, 0);
  EXPECT_FALSE(result.skipped);
}

}  // namespace
}  // namespace neoloom::train
