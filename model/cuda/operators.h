// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "model/cpu/attention.h"

namespace neoloom::model {

/// What attention's forward saves for backward beside its result.
struct AttentionSaved {
  at::Tensor logsumexp;  // in the kernel's own layout
  at::Tensor seed, offset;
};

struct AttentionCall {
  at::Tensor q;     // [queries, H, d] 16 bit, last dimension contiguous
  at::Tensor k, v;  // [keys, H, d]
  const CuSeqlens& rows;
  int64_t window = 0;  // tokens that a query sees, itself included; 0: all up to itself
};

/// Table of the operators that exist for CUDA only, which tests replace to run the GPU's code on CPU tensors. Attention
/// has scale 1; queries are aligned with the last keys of their sample.
struct CudaOperators {
  using Forward = std::function<at::Tensor(const AttentionCall& call, AttentionSaved& saved)>;
  /// `grad` and `out` [queries, H, d] in the type of q.
  using Backward = std::function<AttentionGradients(const at::Tensor& grad, const AttentionCall& call,
                                                    const at::Tensor& out, const AttentionSaved& saved)>;

  /// a b in fp32. Shapes: a [n, k], b [k, m] of one 16-bit type; returns [n, m] fp32.
  std::function<at::Tensor(const at::Tensor& a, const at::Tensor& b)> gemm;
  /// y = beta y + alpha a b; with beta 0 the old y is not read, as in BLAS. Shapes: y [n, m] fp32, any row stride.
  std::function<void(const at::Tensor& y, const at::Tensor& a, const at::Tensor& b, double beta, double alpha)>
      add_gemm;
  Forward flash_forward;
  Backward flash_backward;
  Forward cudnn_forward;  // queries and keys must be the same rows, all samples equally long, no window
  Backward cudnn_backward;
};

/// The production table.
CudaOperators libtorch_operators();

}  // namespace neoloom::model
