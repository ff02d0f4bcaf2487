// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "runtime/comm/communicator.h"

namespace neoloom::train {

/// The exact gradient sum of one step: each micro-batch's fp32 gradient is converted to 64-bit fixed point and added.
/// Integers add associatively, so any assignment of micro-batches to ranks gives the same bits. Elements that are not
/// finite, or reach 2^62 / M, add 0 and raise a counter in the tail of the same buffer.
///   fixed = llrint(g * 2^44 / (N * S))      N: count of the step, S: loss scale, M: micro-batches of the step
class GradientSum {
 public:
  /// Tail after the gradients, in int64: flagged elements, loss sum (2^-32 fixed point), flagged losses, padding.
  static constexpr int64_t kTailElements = 8;

  /// A buffer for `n_elements` gradients on `like`'s device.
  GradientSum(int64_t n_elements, const at::Tensor& like);

  /// Starts a step: everything 0.
  void begin(int64_t target_count, double loss_scale, int64_t micro_batches);
  /// Adds one micro-batch. Shapes: grads [n_elements] fp32; loss [] fp64, the unscaled loss sum.
  void add(const at::Tensor& grads, const at::Tensor& loss);
  /// Collective: every rank.
  void all_reduce(comm::Communicator& communicator);

  struct Result {
    double loss_sum = 0.0;
    int64_t flagged = 0;  // elements and losses that were not finite or too large, over all ranks
  };
  /// Writes the mean gradient to grads [n_elements] fp32 and reads the tail (on CUDA this waits for the device).
  Result finish(at::Tensor& grads) const;

  int64_t bytes() const { return (n_elements_ + kTailElements) * 8; }

 private:
  int64_t n_elements_;
  at::Tensor sum_;  // [n_elements + kTailElements] int64
  double scale_ = 1.0;
  double limit_ = 0.0;
};

}  // namespace neoloom::train
