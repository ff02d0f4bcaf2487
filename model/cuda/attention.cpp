// SPDX-License-Identifier: Apache-2.0
#include "model/cuda/attention.h"

namespace neoloom::model {

/// Returns a view: [rows, h] -> [rows, H, d].
at::Tensor CudaAttention::in_heads(const at::Tensor& rows) const {
  return rows.view({rows.size(0), attention_.num_heads(), rows.size(1) / attention_.num_heads()});
}

AttentionCall CudaAttention::call_for(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const CuSeqlens& rows) const {
  return {in_heads(q), in_heads(k), in_heads(v), rows, attention_.window()};
}

at::Tensor CudaAttention::forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const AttentionRows& rows, AttentionSaved& saved) const {
  if (kernel_ == AttentionKernel::kMath) return attention_.forward(q, k, v, rows.segments);
  const AttentionCall call = call_for(q, k, v, rows.packed);
  const at::Tensor out = uses_cudnn(rows.packed) ? operators_.cudnn_forward(call, saved)  //
                                                 : operators_.flash_forward(call, saved);
  return out.view({q.size(0), q.size(1)});
}

AttentionGradients CudaAttention::backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v, const at::Tensor& out, const AttentionRows& rows,
                                           const AttentionSaved& saved) const {
  if (kernel_ == AttentionKernel::kMath) return attention_.backward(grad, q, k, v, rows.segments);
  const AttentionCall call = call_for(q, k, v, rows.packed);
  const auto& kernel = uses_cudnn(rows.packed) ? operators_.cudnn_backward : operators_.flash_backward;
  const AttentionGradients heads = kernel(in_heads(grad), call, in_heads(out), saved);
  const auto in_rows = [&](const at::Tensor& x) { return x.view({x.size(0), q.size(1)}); };
  return {in_rows(heads.dq), in_rows(heads.dk), in_rows(heads.dv)};
}

}  // namespace neoloom::model
