// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace neoloom::comm {

/// Gradients are summed as int64 multiples of 2^-44: integers add associatively, so any number of ranks and any
/// grouping gives the same bits. Range +-2^18 in sums of up to M micro-batches, resolution 5.7e-14.
inline constexpr int kFixedPointBits = 44;

/// Factor from a gradient of the summed, scaled loss of one micro-batch to fixed point: 2^44 / (N * S), where N is the
/// sum of its targets' weights and S the loss scale (a power of two).
double fixed_point_scale(double target_weight, double loss_scale);

/// Values from here on are flagged: 2^62 / M, so that a sum of M micro-batches cannot overflow.
double fixed_point_limit(int64_t micro_batches);

/// Adds llrint(gradient[i] * scale), computed in float64 and rounded half to even, to sum[i].
/// Elements that are not finite or reach `limit` in magnitude add nothing and are counted.
/// Shapes: gradient, sum [n]. Returns the count of flagged elements.
int64_t add_fixed_point(std::span<const float> gradient, double scale, double limit, std::span<int64_t> sum);

/// values[i] = float(sum[i] * 2^-44), computed in float64. Shapes: sum, values [n].
void from_fixed_point(std::span<const int64_t> sum, std::span<float> values);

}  // namespace neoloom::comm
