// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/fixed_point.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/core/rng.h"

namespace neoloom::comm {
namespace {

// Returns gradients of many magnitudes, whose float sums would round differently in every order.
std::vector<std::vector<float>> micro_batch_gradients(size_t micro_batches, size_t n) {
  std::vector<std::vector<float>> gradients(micro_batches, std::vector<float>(n));
  for (uint32_t m = 0; m < micro_batches; ++m) {
    for (uint32_t i = 0; i < n; ++i) {
      const auto word = core::philox4x32({i, m, 0, 0}, {7, 9});
      const double sign = (word[2] & 1U) != 0 ? -1.0 : 1.0;
      const int exponent = static_cast<int>(word[3] % 40) - 30;
      gradients[m][i] = static_cast<float>(sign * std::ldexp(core::uniform01(word[0], word[1]), exponent));
    }
  }
  return gradients;
}

TEST(FixedPointSum, SameBitsForAnyShareOfMicroBatchesOverRanks) {
  constexpr size_t kMicroBatches = 12, kElements = 501;
  const auto gradients = micro_batch_gradients(kMicroBatches, kElements);
  const double scale = fixed_point_scale(96, 1.0);
  const double limit = fixed_point_limit(kMicroBatches);
  std::vector<std::vector<int64_t>> totals;
  for (size_t ranks : {1, 2, 3, 4, 5, 12}) {
    std::vector<int64_t> total(kElements, 0);
    for (size_t rank = ranks; rank-- > 0;) {
      std::vector<int64_t> part(kElements, 0);
      for (size_t m = rank; m < kMicroBatches; m += ranks) {
        EXPECT_EQ(add_fixed_point(gradients[m], scale, limit, part), 0);
      }
      for (size_t i = 0; i < kElements; ++i) total[i] += part[i];
    }
    totals.push_back(total);
  }
  for (const auto& total : totals) EXPECT_EQ(total, totals.front());
}

TEST(FixedPointSum, IsCloserToTheTrueMeanThanItsResolutionPerMicroBatch) {
  const auto gradients = micro_batch_gradients(8, 100);
  std::vector<int64_t> sum(100, 0);
  for (const auto& gradient : gradients)
    add_fixed_point(gradient, fixed_point_scale(8, 1.0), fixed_point_limit(8), sum);
  std::vector<float> mean(100);
  from_fixed_point(sum, mean);
  for (size_t i = 0; i < 100; ++i) {
    long double exact = 0;
    for (const auto& gradient : gradients) exact += static_cast<long double>(gradient[i]) / 8;
    // Half a unit of 2^-44 for each of 8 conversions, and the float32 of the result.
    EXPECT_NEAR(mean[i], static_cast<double>(exact), 8 * std::ldexp(0.5, -44) + std::fabs(exact) * 6e-8) << i;
  }
}

TEST(FixedPointSum, RoundsHalfToEven) {
  const std::vector<float> gradient{0.5F, 1.5F, 2.5F, -0.5F, -1.5F, -2.5F, 0.75F};
  std::vector<int64_t> sum(gradient.size(), 0);
  add_fixed_point(gradient, 1.0, fixed_point_limit(1), sum);
  EXPECT_EQ(sum, (std::vector<int64_t>{0, 2, 2, 0, -2, -2, 1}));
}

TEST(FixedPointSum, FlagsWhatIsNotFiniteOrTooLargeAndAddsNothingForIt) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float at_limit = std::ldexp(1.0F, 60), below = std::nextafter(at_limit, 0.0F);
  const std::vector<float> gradient{1.0F, inf, -inf, nan, at_limit, -at_limit, below, 3.0F};
  std::vector<int64_t> sum(gradient.size(), 10);
  EXPECT_EQ(add_fixed_point(gradient, 1.0, fixed_point_limit(4), sum), 5);
  EXPECT_EQ(sum, (std::vector<int64_t>{11, 10, 10, 10, 10, 10, 10 + static_cast<int64_t>(below), 13}));
}

TEST(FixedPointSum, LargestUsableValuesOfAllMicroBatchesDoNotOverflow) {
  constexpr int64_t kMicroBatches = 3;
  const double limit = fixed_point_limit(kMicroBatches);
  const std::vector<float> gradient{std::nextafter(static_cast<float>(limit), 0.0F)};
  std::vector<int64_t> sum{0};
  for (int64_t m = 0; m < kMicroBatches; ++m) EXPECT_EQ(add_fixed_point(gradient, 1.0, limit, sum), 0);
  EXPECT_GT(sum[0], int64_t{1} << 61);
  EXPECT_LE(sum[0], int64_t{1} << 62);
}

TEST(FixedPointSum, LossScaleAndCountAreDividedOut) {
  std::vector<int64_t> sum{0};
  add_fixed_point(std::vector<float>{3.0F * 1024.0F}, fixed_point_scale(6, 1024.0), fixed_point_limit(1), sum);
  std::vector<float> mean(1);
  from_fixed_point(sum, mean);
  EXPECT_EQ(mean[0], 0.5F);
}

TEST(FixedPointSum, RefusesBuffersOfUnequalLength) {
  std::vector<int64_t> sum(2);
  EXPECT_THROW(add_fixed_point(std::vector<float>{1.0F}, 1.0, 1.0, sum), core::Error);
  std::vector<float> values(3);
  EXPECT_THROW(from_fixed_point(sum, values), core::Error);
}

}  // namespace
}  // namespace neoloom::comm
