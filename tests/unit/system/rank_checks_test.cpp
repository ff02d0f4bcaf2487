// SPDX-License-Identifier: Apache-2.0
#include "launch/selftest/rank_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace neoloom::launch {
namespace {

using testing::HasSubstr;

TEST(Clock, WarnsOfWhatTheMeasurementCannotExplain) {
  EXPECT_EQ(clock_check({0.4, 0.0}).health, Health::kOk);
  EXPECT_EQ(clock_check({2.0, 1.6}).health, Health::kOk) << "a slow message";
  const Check ahead = clock_check({2.54, 0.01});
  EXPECT_EQ(ahead.health, Health::kWarn);
  EXPECT_EQ(ahead.text, "2.5 s ahead of rank 0's");
  EXPECT_THAT(ahead.remedy, HasSubstr("chronyc"));
  EXPECT_EQ(clock_check({-90.0, 0.01}).text, "90.0 s behind rank 0's");
}

TEST(SumSpeed, CountsWhatARankSendsAndReceives) {
  const Check check = sum_speed_check({{8, 12e-6}, {size_t{16} << 20, 16.777216e-3}}, 4);
  EXPECT_EQ(check.health, Health::kOk);
  EXPECT_EQ(check.text, "8 bytes in 12 us, 16.0 MiB in 16.78 ms (1.50 GB/s)");
}

TEST(SumSpeed, HighLatencyOrLowBandwidthWarns) {
  const size_t large = size_t{16} << 20;
  EXPECT_EQ(sum_speed_check({{8, 5e-3}, {large, 0.01}}, 2).health, Health::kWarn);
  EXPECT_EQ(sum_speed_check({{8, 1e-5}, {large, 0.2}}, 2).health, Health::kWarn);
  EXPECT_EQ(sum_speed_check({{8, 1e-5}, {large, 0.1}}, 2).health, Health::kOk);
}

}  // namespace
}  // namespace neoloom::launch
