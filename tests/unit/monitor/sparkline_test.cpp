// SPDX-License-Identifier: Apache-2.0
#include "launch/monitor/sparkline.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace neoloom::launch {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::string drawn(const std::vector<double>& values, size_t columns, bool unicode = false) {
  return sparkline(values, columns, unicode);
}

TEST(Sparkline, GoesFromTheLeastToTheGreatestValue) {
  EXPECT_EQ(drawn({0, 1, 2, 3, 4, 5, 6, 7}, 8, true), "▁▂▃▄▅▆▇█");
  EXPECT_EQ(drawn({0, 1, 2, 3, 4, 5, 6, 7}, 8), "_.-~=+*#");
  EXPECT_EQ(drawn({7, 0}, 80), "#_");
}

TEST(Sparkline, ASignIsTheMeanOfItsShareOfTheValues) {
  EXPECT_EQ(drawn({0, 0, 3, 11, 7, 7}, 3), "_##");
  std::vector<double> many(1'000'000);
  std::iota(many.begin(), many.end(), 0.0);
  EXPECT_EQ(drawn(many, 8), "_.-~=+*#");
  EXPECT_EQ(drawn({1, 2, 3, 4, 5}, 2), "_#") << "shares of two and three values";
}

TEST(Sparkline, EqualValuesAreAFlatLineOfMiddleHeight) { EXPECT_EQ(drawn({2, 2, 2}, 9), "==="); }

TEST(Sparkline, LeavesOutWhatIsNotFinite) {
  EXPECT_EQ(drawn({0, kNan, 7}, 3), "_ #");
  EXPECT_EQ(drawn({0, std::numeric_limits<double>::infinity(), 7, kNan}, 2), "_#");
  EXPECT_EQ(drawn({kNan}, 3), " ");
  EXPECT_EQ(drawn({}, 3), "");
  EXPECT_EQ(drawn({1, 2}, 0), "");
}

}  // namespace
}  // namespace neoloom::launch
