// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/cpu/packed_gemm.h"
#include "model/lora/dropout.h"

namespace neoloom::model {

/// One adapter of PEFT's plain LoRA as a step sees it: y += s * drop(x) A^T B^T. On CPUs A, B and all sums are fp32; x
/// and dy may be bfloat16.
struct LoraBranch {
  at::Tensor a;       // [r, in]; undefined: no adapter here
  at::Tensor b;       // [out, r]
  at::Tensor a_grad;  // views of the gradient buffer, overwritten by backward
  at::Tensor b_grad;
  at::Tensor lowp_a, lowp_b;  // GPUs: a and b in the compute dtype
  double scaling = 1.0;
  DropoutMask dropout;  // probability 0 outside training

  bool present() const { return a.defined(); }

  /// drop(x) A^T [n, r] fp32, which backward wants. Shapes: x [n, in]; keys name the rows.
  at::Tensor down(const at::Tensor& x, const std::vector<RowKey>& keys) const;

  /// Sets the thin term that makes the adapter's output of `down`.
  void join_forward(const at::Tensor& down, Epilogue& terms) const;

  /// Gradients of A and B. Shapes: dy [n, out], x [n, in]. Returns the adapter's part of x's gradient [n, in], nothing
  /// unless `wants_dx`.
  Epilogue backward(const at::Tensor& dy, const at::Tensor& x, const std::vector<RowKey>& keys, const at::Tensor& down,
                    bool wants_dx) const;

 private:
  at::Tensor dropped(const at::Tensor& x, const std::vector<RowKey>& keys) const;
};

}  // namespace neoloom::model
