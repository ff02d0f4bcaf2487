// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/loss_spikes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace neoloom::train {
namespace {

using testing::HasSubstr;

StepResult step_of(double loss) { return {.step = 7, .loss = loss, .target_weight = 1.0}; }

LossSpikes after(const LossSpikePolicy& policy, const std::vector<double>& losses) {
  LossSpikes spikes(policy);
  for (const double loss : losses) spikes.note(step_of(loss));
  return spikes;
}

TEST(LossSpikes, AreThoseAboveSoManyStandardDeviationsOfTheLastLosses) {
  const LossSpikes spikes = after({.z_score = 3.0, .window = 4}, {9.0, 1.0, 2.0, 3.0, 4.0});
  EXPECT_DOUBLE_EQ(spikes.limit(), 2.5 + 3.0 * std::sqrt(5.0 / 3.0)) << "the window has forgotten 9";
  EXPECT_THAT(spikes.describe(step_of(10.0)), HasSubstr("step 7: its loss 10 is 5.8 standard deviations above"));
}

TEST(LossSpikes, NeedLossesToCompareWith) {
  EXPECT_EQ(after({.z_score = 3.0, .window = 100}, std::vector<double>(9, 1.0)).limit(), kAnyLoss);
  EXPECT_GT(after({.z_score = 3.0, .window = 100}, std::vector<double>(10, 1.0)).limit(), 1.0) << "equal to each other";
  EXPECT_EQ(after({}, std::vector<double>(50, 1.0)).limit(), kAnyLoss) << "off";
}

TEST(LossSpikes, CountAndDoNotMoveTheMean) {
  LossSpikes spikes = after({.z_score = 2.0, .window = 2, .most_skipped = 2}, {1.0, 2.0});
  const double limit = spikes.limit();
  StepResult spike = step_of(50.0);
  spike.spiked = true;
  spikes.note(spike);
  EXPECT_EQ(spikes.limit(), limit);
  EXPECT_FALSE(spikes.too_many());
  spikes.note(spike);
  EXPECT_TRUE(spikes.too_many());
  spikes.note(step_of(1.5));
  EXPECT_EQ(spikes.in_a_row(), 0);
  EXPECT_EQ(spikes.count(), 2);
}

TEST(LossSpikes, GoOnFromTheirStoredState) {
  const LossSpikePolicy policy{.z_score = 2.0, .window = 3};
  LossSpikes spikes = after(policy, {0.1, 0.7, 0.3, 0.2});
  LossSpikes again(policy);
  again.restore(nlohmann::json::parse(spikes.state().dump()));
  for (const double loss : {0.35, 0.25}) {
    EXPECT_EQ(again.limit(), spikes.limit());
    spikes.note(step_of(loss));
    again.note(step_of(loss));
  }
  EXPECT_EQ(again.state(), spikes.state());
}

TEST(LossSpikes, TakeNoLossThatIsNotFinite) {
  LossSpikes spikes = after({.z_score = 2.0, .window = 2}, {1.0, 2.0});
  const double limit = spikes.limit();
  spikes.note(step_of(std::nan("")));
  EXPECT_EQ(spikes.limit(), limit);
}

}  // namespace
}  // namespace neoloom::train
