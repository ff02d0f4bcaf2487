// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "runtime/comm/communicator.h"

namespace neoloom::train {

inline constexpr double kLossUnit = 0x1.0p32;  // a summed loss of 1 in fixed point

/// The gradient sum of one step, over micro-batches and ranks, in one buffer on the model's device. Loss and flags lie
/// before the gradients: they share the bucket that the backward pass completes last.
class GradientSum {
 public:
  /// Elements before the gradients, for the loss and the flags: 64 bytes of fp32.
  static constexpr int64_t kHeadElements = 16;

  virtual ~GradientSum() = default;

  /// Starts a step: zeroes the buffer and sets N = target_weight, the sum of the targets' weights, S = loss_scale,
  /// M = micro_batches, all of the step.
  virtual void begin(double target_weight, double loss_scale, int64_t micro_batches) = 0;
  /// Adds elements [begin, end) of one micro-batch's gradients. Shapes: grads [n_elements] fp32.
  virtual void add(const at::Tensor& grads, int64_t begin, int64_t end) = 0;
  /// Adds the loss of one micro-batch. Shapes: loss [] fp64, the unscaled sum.
  virtual void add_loss(const at::Tensor& loss) = 0;

  /// Returns the memory to all-reduce for the gradients [begin, end); with begin == 0, loss and flags too.
  struct Part {
    void* data = nullptr;
    size_t n_elements = 0;
    comm::Element element = comm::Element::kInt64;
  };
  virtual Part part(int64_t begin, int64_t end) = 0;

  /// Tensors on the gradients' device; the host does not wait for them.
  struct Totals {
    at::Tensor loss_sum;  // [] fp64
    at::Tensor flagged;   // [] fp64: elements and losses that were not finite or too large, over all ranks
  };
  /// Writes the mean gradient to grads [n_elements] fp32.
  virtual Totals finish(at::Tensor& grads) const = 0;

  virtual int64_t n_elements() const = 0;
  virtual int64_t bytes() const = 0;
};

struct GradientSumSetup {
  std::string kind = "fixed";  // runtime.gradient_sum
  int64_t n_elements = 0;
  at::Device device = at::kCPU;
  bool device_operators = false;  // use ATen operators without a read-back; else loops on the CPU
};

/// The kinds:
///   fixed  exact: each micro-batch's fp32 gradient is converted to 64-bit fixed point, llrint(g * 2^44 / (N * S)), and
///          added. Integers add associatively, so any assignment of micro-batches to ranks gives the same bits.
///          Elements that are not finite, or reach 2^62 / M, add 0 and raise a counter in the head of the same buffer.
///   float  g / (N * S) is added in fp32: half the bytes and no conversion, but the bits depend on the number of ranks
///          and on the buckets. An element that is not finite makes its sum so, on every rank.
/// Throws: Error(kUsage) for another kind.
std::unique_ptr<GradientSum> make_gradient_sum(const GradientSumSetup& setup);

/// Bytes that a step all-reduces. Throws: Error(kUsage) for another kind.
int64_t gradient_sum_bytes(const std::string& kind, int64_t n_elements);

}  // namespace neoloom::train
