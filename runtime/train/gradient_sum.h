// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "runtime/comm/communicator.h"

namespace neoloom::train {

/// The gradient sum of one step, over micro-batches and ranks, in one buffer on the model's device: one all-reduce.
class GradientSum {
 public:
  /// Elements after the gradients, for the loss and what went wrong.
  static constexpr int64_t kTailElements = 8;

  virtual ~GradientSum() = default;

  /// Starts a step: everything 0. N: count of the step, S: loss scale, M: micro-batches of the step.
  virtual void begin(int64_t target_count, double loss_scale, int64_t micro_batches) = 0;
  /// Adds one micro-batch. Shapes: grads [n_elements] fp32; loss [] fp64, the unscaled loss sum.
  virtual void add(const at::Tensor& grads, const at::Tensor& loss) = 0;
  /// Collective: every rank.
  virtual void all_reduce(comm::Communicator& communicator) = 0;

  struct Result {
    double loss_sum = 0.0;
    int64_t flagged = 0;  // elements and losses that were not finite or too large, over all ranks
  };
  /// Writes the mean gradient to grads [n_elements] fp32 and reads the tail (on CUDA this waits for the device).
  virtual Result finish(at::Tensor& grads) const = 0;

  virtual int64_t bytes() const = 0;
};

/// runtime.gradient_sum, for `n_elements` gradients on `like`'s device:
///   fixed  exact: each micro-batch's fp32 gradient is converted to 64-bit fixed point, llrint(g * 2^44 / (N * S)), and
///          added. Integers add associatively, so any assignment of micro-batches to ranks gives the same bits.
///          Elements that are not finite, or reach 2^62 / M, add 0 and raise a counter in the tail of the same buffer.
///   float  g / (N * S) is added in fp32: half the bytes and no conversion, but the bits depend on the number of ranks.
///          An element that is not finite makes its sum so, on every rank.
/// Throws: Error(kUsage) for another kind.
std::unique_ptr<GradientSum> make_gradient_sum(const std::string& kind, int64_t n_elements, const at::Tensor& like);

/// Size of the all-reduce. Throws: Error(kUsage) for another kind.
int64_t gradient_sum_bytes(const std::string& kind, int64_t n_elements);

}  // namespace neoloom::train
