// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace neoloom::model {

/// loss_i = logsumexp(logits_i) - logits_i[target_i]. Shapes: logits [n, V] fp32 contiguous, overwritten by
/// scale * (softmax - onehot) when `needs_gradient`, else left undefined; targets [n] int64. In host memory.
at::Tensor cross_entropy_rows(at::Tensor& logits, const at::Tensor& targets, double scale, bool needs_gradient);

/// The same by ATen operators without a read-back, for targets on the logits' device. The gradient is computed in fp32
/// and then converted to `type`.
at::Tensor cuda_cross_entropy_rows(at::Tensor& logits, const at::Tensor& targets, double scale, bool needs_gradient,
                                   at::ScalarType type = at::kFloat);

/// Binary cross entropy with logits, mean over the labels of a row. Shapes: logits, labels [n, C] fp32; `gradient`
/// (may be null) receives scale * d(sum of losses)/d(logits). Returns [n] fp32.
at::Tensor binary_cross_entropy_rows(const at::Tensor& logits, const at::Tensor& labels, double scale,
                                     at::Tensor* gradient);

}  // namespace neoloom::model
