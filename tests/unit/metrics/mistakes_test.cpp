// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/mistakes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

namespace neoloom::metrics {
namespace {

std::vector<int64_t> rows_of(const std::vector<Mistake>& mistakes) {
  std::vector<int64_t> rows(mistakes.size());
  std::transform(mistakes.begin(), mistakes.end(), rows.begin(), [](const Mistake& mistake) { return mistake.row; });
  return rows;
}

TEST(Mistakes, TheLargestScoresStayInWhateverOrderTheyCome) {
  std::vector<Mistake> all;
  for (int64_t row = 0; row < 100; ++row) all.push_back({row, 0, 1, static_cast<double>(row - row % 2), 0.0});
  std::vector<int64_t> expected;
  for (int64_t row = 98; row >= 80; row -= 2) expected.insert(expected.end(), {row, row + 1});
  std::mt19937 random(1);
  for (int round = 0; round < 10; ++round) {
    std::shuffle(all.begin(), all.end(), random);
    std::vector<Mistake> worst;
    for (const Mistake& mistake : all) add_mistake(worst, mistake);
    EXPECT_EQ(rows_of(worst), expected);
  }
}

TEST(Mistakes, AScoreThatIsNoNumberIsLeftOut) {
  std::vector<Mistake> worst;
  add_mistake(worst, {1, 0, 1, std::numeric_limits<double>::quiet_NaN(), 0.0});
  EXPECT_THAT(worst, testing::IsEmpty());
}

}  // namespace
}  // namespace neoloom::metrics
