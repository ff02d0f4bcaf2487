// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "model/cpu/attention.h"
#include "model/cuda/attention_choice.h"
#include "model/cuda/operators.h"

namespace neoloom::model {

/// Rows of a micro-batch in both forms. Varlen kernels read `packed`, the others `segments`.
struct AttentionRows {
  const std::vector<SequenceSpan>& segments;
  const CuSeqlens& packed;
};

/// Attention on a GPU, by the kernel that choose_attention() returned. Where that is cuDNN, flash attention still
/// computes rows whose queries are only the last tokens, since cuDNN aligns queries with the first keys, and samples of
/// unequal lengths.
class CudaAttention {
 public:
  /// `operators` must outlive this.
  CudaAttention(AttentionKernel kernel, const Attention& attention, const CudaOperators& operators)
      : kernel_(kernel), attention_(attention), operators_(operators) {}

  /// Whether q, k, v and the gradient must have 16 bits.
  bool wants_16bit() const { return kernel_ != AttentionKernel::kMath; }

  /// Shapes: q [queries, h], k, v [keys, h]; returns [queries, h] of the same type.
  at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionRows& rows,
                     AttentionSaved& saved) const;

  /// `grad` is the gradient of forward's result `out`. Gradients have the type of q.
  AttentionGradients backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const at::Tensor& out, const AttentionRows& rows, const AttentionSaved& saved) const;

 private:
  bool uses_cudnn(const CuSeqlens& rows) const {
    return kernel_ == AttentionKernel::kCudnn && rows.queries_are_keys && rows.equal_samples > 0;
  }
  at::Tensor in_heads(const at::Tensor& rows) const;
  AttentionCall call_for(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const CuSeqlens& rows) const;

  AttentionKernel kernel_;
  const Attention& attention_;
  const CudaOperators& operators_;
};

}  // namespace neoloom::model
