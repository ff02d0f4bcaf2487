// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/fixed_point.h"

#include <cmath>

#include "runtime/core/error.h"

namespace neoloom::comm {

double fixed_point_scale(double target_weight, double loss_scale) {
  core::require(target_weight > 0 && loss_scale > 0, core::ErrorKind::kInternal,
                "Fixed-point sums need positive weights and loss scale, found {} and {}", target_weight, loss_scale);
  return std::ldexp(1.0, kFixedPointBits) / (target_weight * loss_scale);
}

double fixed_point_limit(int64_t micro_batches) {
  core::require(micro_batches > 0, core::ErrorKind::kInternal, "A step needs micro-batches, found {}", micro_batches);
  return std::ldexp(1.0, 62) / static_cast<double>(micro_batches);
}

int64_t add_fixed_point(std::span<const float> gradient, double scale, double limit, std::span<int64_t> sum) {
  core::require(gradient.size() == sum.size(), core::ErrorKind::kInternal,
                "Fixed-point sum has {} elements, the gradient {}", sum.size(), gradient.size());
  const size_t n = gradient.size();
  int64_t flagged = 0;
  for (size_t i = 0; i < n; ++i) {
    const double value = static_cast<double>(gradient[i]) * scale;
    const bool usable = std::fabs(value) < limit;  // false for NaN too
    sum[i] += std::llrint(usable ? value : 0.0);
    flagged += usable ? 0 : 1;
  }
  return flagged;
}

void from_fixed_point(std::span<const int64_t> sum, std::span<float> values) {
  core::require(sum.size() == values.size(), core::ErrorKind::kInternal,
                "Fixed-point sum has {} elements, the target {}", sum.size(), values.size());
  const double unit = std::ldexp(1.0, -kFixedPointBits);
  const size_t n = sum.size();
  for (size_t i = 0; i < n; ++i) values[i] = static_cast<float>(static_cast<double>(sum[i]) * unit);
}

}  // namespace neoloom::comm
