// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/step_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace neoloom::train {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Steps = std::vector<int64_t>;

constexpr int64_t kStepsPerEpoch = 4;

// Runs 2.5 epochs of 4 steps. Returns the steps after which `due` holds.
template <typename Due>
Steps steps_of(const Options& options, const Due& due) {
  const StepSchedule schedule = resolve_schedule(options, kStepsPerEpoch);
  Steps steps;
  for (int64_t step = 1; step <= schedule.total_steps; ++step) {
    if (due(schedule, step)) steps.push_back(step);
  }
  return steps;
}

Options two_and_a_half_epochs() {
  Options options;
  options.num_train_epochs = 2.5;
  options.logging_steps = 3;
  return options;
}

Steps evaluated(Interval strategy, double eval_steps, double delay) {
  Options options = two_and_a_half_epochs();
  options.eval_strategy = strategy;
  options.eval_steps = eval_steps;
  options.eval_delay = delay;
  return steps_of(options, [](const StepSchedule& schedule, int64_t step) { return schedule.evaluates_after(step); });
}

Steps logged(Interval strategy, bool first_step) {
  Options options = two_and_a_half_epochs();
  options.logging_strategy = strategy;
  return steps_of(options, [first_step](const StepSchedule& schedule, int64_t step) {
    return schedule.logs_after(step, first_step);
  });
}

Steps saved(Interval strategy) {
  Options options = two_and_a_half_epochs();
  options.save_strategy = strategy;
  options.save_steps = 3;
  return steps_of(options, [](const StepSchedule& schedule, int64_t step) { return schedule.saves_after(step); });
}

TEST(Strategies, EvaluateEverySoManyStepsOrAtTheEndOfEpochsAndOfTheRun) {
  EXPECT_THAT(evaluated(Interval::kNo, 3, 0), IsEmpty());
  EXPECT_THAT(evaluated(Interval::kSteps, 4, 0), ElementsAre(4, 8, 10));
  EXPECT_THAT(evaluated(Interval::kSteps, 0, 0), ElementsAre(3, 6, 9, 10)) << "logging_steps";
  EXPECT_THAT(evaluated(Interval::kEpoch, 3, 0), ElementsAre(4, 8, 10));
}

TEST(Strategies, ADelayCountsStepsOrEpochsAsTheEvaluationsDo) {
  EXPECT_THAT(evaluated(Interval::kSteps, 3, 6), ElementsAre(6, 9, 10));
  EXPECT_THAT(evaluated(Interval::kSteps, 3, 6.5), ElementsAre(9, 10));
  EXPECT_THAT(evaluated(Interval::kEpoch, 0, 2), ElementsAre(8, 10));
  EXPECT_THAT(evaluated(Interval::kEpoch, 0, 2.6), IsEmpty()) << "the run ends before";
  EXPECT_THAT(evaluated(Interval::kSteps, 3, 11), IsEmpty());
}

TEST(Strategies, LogEverySoManyStepsEpochsOrNever) {
  EXPECT_THAT(logged(Interval::kSteps, false), ElementsAre(3, 6, 9, 10));
  EXPECT_THAT(logged(Interval::kEpoch, true), ElementsAre(1, 4, 8, 10));
  EXPECT_THAT(logged(Interval::kNo, false), IsEmpty());
  EXPECT_THAT(logged(Interval::kNo, true), ElementsAre(1));
}

TEST(Strategies, TheEndIsSavedWhateverTheStrategy) {
  EXPECT_THAT(saved(Interval::kSteps), ElementsAre(3, 6, 9, 10));
  EXPECT_THAT(saved(Interval::kEpoch), ElementsAre(4, 8, 10));
  EXPECT_THAT(saved(Interval::kNo), ElementsAre(10));
  EXPECT_THAT(saved(Interval::kBest), ElementsAre(10)) << "beside those that an evaluation asks for";
}

}  // namespace
}  // namespace neoloom::train
