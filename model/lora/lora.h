// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/cpu/packed_gemm.h"
#include "model/lora/dora.h"
#include "model/lora/dropout.h"

namespace neoloom::model {

/// One adapter of PEFT's LoRA: y += s * drop(x) A^T B^T, or DoRA. On CPUs A, B and all accumulation are fp32; x and dy
/// may be bfloat16.
struct LoraBranch {
  at::Tensor a;       // [r, in]; undefined: no adapter here
  at::Tensor b;       // [out, r]
  at::Tensor a_grad;  // views of the gradient buffer, overwritten by backward
  at::Tensor b_grad;
  at::Tensor bias_grad;       // [out] of B's bias, which the linear's bias holds already; undefined: B has none
  at::Tensor lowp_a, lowp_b;  // GPUs: a and b in the compute dtype
  double scaling = 1.0;
  at::Tensor a0, b0;            // as a and b, frozen: s b0 a0 is subtracted from the weight; undefined: nothing is
  at::Tensor lowp_a0, lowp_b0;  // GPUs
  DropoutMask dropout;          // probability 0 outside training
  Dora dora;                    // never beside a0 and b0

  bool present() const { return a.defined(); }

  /// Returns drop(x); x itself without dropout. Shapes: x [n, in]; keys [n], one per row of x.
  at::Tensor dropped(const at::Tensor& x, const std::vector<RowKey>& keys) const;

  /// Returns drop(x) A^T [n, r] fp32, which backward needs. Shapes: dropped [n, in].
  at::Tensor down(const at::Tensor& dropped) const;

  /// Returns the term that adds s * down B^T to W drop(x).
  Epilogue output_terms(const at::Tensor& down) const;
  /// Adds to `terms` what makes the adapter's output of W drop(x): output_terms, and for DoRA the gain of both.
  /// Subtracts s x a0^T b0^T, which has no dropout. Shapes: x [n, in], down [n, r].
  void join_forward(const at::Tensor& x, const at::Tensor& down, Epilogue& terms) const;

  /// Writes the gradients of A and B. Returns the terms that add the adapter's part, and that of a0 and b0, of x's
  /// gradient [n, in]; empty unless `needs_dx`. Shapes: dy [n, out], x [n, in].
  Epilogue backward(const at::Tensor& dy, const at::Tensor& x, const std::vector<RowKey>& keys, const at::Tensor& down,
                    bool needs_dx) const;
};

}  // namespace neoloom::model
