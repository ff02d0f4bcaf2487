// SPDX-License-Identifier: Apache-2.0
#include "launch/report/thinned.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "launch/report/run_record.h"

namespace neoloom::launch {
namespace {

using testing::SizeIs;

TrainPoint point(int64_t step, double loss = 1.0, double grad_norm = 1.0) { return {step, 0.0, loss, grad_norm, 0.0}; }

void add(TrainSeries& series, const TrainPoint& added) { series.add({{added}}); }

std::vector<int64_t> steps_of(const TrainSeries& series) {
  std::vector<int64_t> steps;
  for (const TrainPoint& each : points_of(series)) steps.push_back(each.step);
  return steps;
}

bool has(const TrainSeries& series, int64_t step) {
  const std::vector<int64_t> steps = steps_of(series);
  return std::find(steps.begin(), steps.end(), step) != steps.end();
}

TEST(Thinned, KeepsEveryPointOfAShortSeries) {
  TrainSeries series;
  EXPECT_TRUE(series.empty());
  for (int64_t step = 1; step <= static_cast<int64_t>(TrainSeries::kMost); ++step) add(series, point(step));
  EXPECT_THAT(points_of(series), SizeIs(TrainSeries::kMost));
  add(series, point(2049));
  EXPECT_THAT(series.stretches(), SizeIs(TrainSeries::kMost / 2 + 1));
  EXPECT_THAT(points_of(series), SizeIs(TrainSeries::kMost + 1)) << "a stretch of two keeps both";
}

TEST(Thinned, OfAMillionPointsThousandsStayWithThoseThatTellMost) {
  TrainSeries series;
  for (int64_t step = 1; step <= 1'000'000; ++step) {
    const double loss = step == 123'457 ? 9999.0 : step == 654'321 ? -99.0 : static_cast<double>(step * 7919 % 1000);
    add(series, point(step, loss, step == 777'777 ? 1e6 : 1.0));
    ASSERT_LE(series.stretches().size(), TrainSeries::kMost);
  }
  const std::vector<int64_t> steps = steps_of(series);
  EXPECT_GT(steps.size(), TrainSeries::kMost / 2);
  EXPECT_LE(steps.size(), 8 * TrainSeries::kMost);
  EXPECT_TRUE(std::is_sorted(steps.begin(), steps.end()));
  EXPECT_EQ(steps.front(), 1);
  EXPECT_EQ(last_of(series).step, 1'000'000);
  for (const int64_t step : {123'457, 654'321, 777'777}) EXPECT_TRUE(has(series, step)) << step;
}

TEST(Thinned, LossesThatAreNotFiniteHideNone) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  TrainSeries series;
  Thinned<MeanLoss> means;
  for (int64_t step = 1; step <= 100'000; ++step) {
    const double loss = step % 3 != 0 ? kNan : step == 30'000 ? 7.0 : 1.0;
    add(series, point(step, loss));
    means.add({step, std::isnan(loss) ? 0.0 : loss, std::isnan(loss) ? 0 : 1});
  }
  EXPECT_TRUE(has(series, 30'000));
  double sum = 0.0;
  int64_t count = 0;
  for (const MeanLoss& stretch : means.stretches()) {
    sum += stretch.sum;
    count += stretch.count;
  }
  EXPECT_THAT(means.stretches(), SizeIs(testing::Le(Thinned<MeanLoss>::kMost)));
  EXPECT_EQ(count, 33'333);
  EXPECT_EQ(sum, 33'333 + 6.0);
  EXPECT_TRUE(std::isnan(MeanLoss().mean()));
}

TEST(Thinned, AResumeForgetsLaterPointsAndGoesOn) {
  TrainSeries series;
  Thinned<MeanLoss> means;
  const auto add_steps = [&](int64_t from, int64_t to, double loss) {
    for (int64_t step = from; step <= to; ++step) {
      add(series, point(step, loss));
      means.add({step, loss, 1});
    }
  };
  add_steps(1, 100'000, 1.0);
  series.forget_beyond(50'001);
  means.forget_beyond(50'001);
  EXPECT_LE(last_of(series).step, 50'001);
  EXPECT_GT(last_of(series).step, 50'001 - 128);
  add_steps(50'002, 60'000, 2.0);
  EXPECT_EQ(last_of(series).step, 60'000);
  const std::vector<int64_t> steps = steps_of(series);
  EXPECT_TRUE(std::is_sorted(steps.begin(), steps.end()));
  EXPECT_TRUE(has(series, 50'002));
  EXPECT_EQ(means.stretches().back().mean(), 2.0);
  series.forget_beyond(-1);
  EXPECT_TRUE(series.empty());
  add_steps(1, 3, 1.0);
  EXPECT_EQ(last_of(series).step, 3);
}

TEST(Thinned, EndlessResumesStayBounded) {
  TrainSeries series;
  for (int64_t step = 1; step <= 100'000; ++step) {
    add(series, point(step));
    if (step % 7 == 0) series.forget_beyond(step);
    ASSERT_LE(series.stretches().size(), TrainSeries::kMost);
  }
  EXPECT_EQ(last_of(series).step, 100'000);
}

}  // namespace
}  // namespace neoloom::launch
