// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/cpu/packed_gemm.h"
#include "model/lora/dropout.h"

namespace neoloom::model {

/// One adapter of PEFT's plain LoRA: y += s * drop(x) A^T B^T. On CPUs A, B and all accumulation are fp32; x and dy may
/// be bfloat16.
struct LoraBranch {
  at::Tensor a;       // [r, in]; undefined: no adapter here
  at::Tensor b;       // [out, r]
  at::Tensor a_grad;  // views of the gradient buffer, overwritten by backward
  at::Tensor b_grad;
  at::Tensor lowp_a, lowp_b;  // GPUs: a and b in the compute dtype
  double scaling = 1.0;
  at::Tensor a0, b0;            // as a and b, frozen: s b0 a0 is subtracted from the weight; undefined: nothing is
  at::Tensor lowp_a0, lowp_b0;  // GPUs
  DropoutMask dropout;          // probability 0 outside training

  bool present() const { return a.defined(); }

  /// Returns drop(x) A^T [n, r] fp32, which backward needs. Shapes: x [n, in]; keys [n], one per row of x.
  at::Tensor down(const at::Tensor& x, const std::vector<RowKey>& keys) const;

  /// Sets the low-rank term of `terms` that adds the adapter's output, s * down B^T, and subtracts s x a0^T b0^T, which
  /// has no dropout. Shapes: x [n, in], down [n, r].
  void join_forward(const at::Tensor& x, const at::Tensor& down, Epilogue& terms) const;

  /// Writes the gradients of A and B. Returns the terms that add the adapter's part, and that of a0 and b0, of x's
  /// gradient [n, in]; empty unless `needs_dx`. Shapes: dy [n, out], x [n, in].
  Epilogue backward(const at::Tensor& dy, const at::Tensor& x, const std::vector<RowKey>& keys, const at::Tensor& down,
                    bool needs_dx) const;

 private:
  at::Tensor dropped(const at::Tensor& x, const std::vector<RowKey>& keys) const;
};

}  // namespace neoloom::model
