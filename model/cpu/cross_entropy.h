// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace neoloom::model {

/// With `gradients`, a head computes gradients of (loss sum * loss_scale); else only the loss.
struct LossOptions {
  bool gradients = false;
  double loss_scale = 1.0;
  bool counts_right = false;     // causal LM: counts the targets that have the largest logit
  double label_smoothing = 0.0;  // e: a target's share is 1 - e + e / C, every other class's e / C
};

/// loss_i = logsumexp(logits_i) - sum of share * logits_i, as torch's CrossEntropyLoss(label_smoothing=e). Shapes:
/// logits [n, V] fp32 contiguous, overwritten by loss_scale * (softmax - shares) with `gradients`, else left undefined;
/// targets [n] int64. In host memory.
at::Tensor cross_entropy_rows(at::Tensor& logits, const at::Tensor& targets, const LossOptions& options);

/// The same by ATen operators without a read-back, for targets on the logits' device. The gradient is computed in fp32
/// and then converted to `type`. Only the first `classes` columns are classes; those behind them hold -inf.
at::Tensor cuda_cross_entropy_rows(at::Tensor& logits, const at::Tensor& targets, const LossOptions& options,
                                   int64_t classes, at::ScalarType type = at::kFloat);

/// What the losses of rows are computed from. Shapes: logits, values [n, C] fp32; weights [n, C] fp32, or undefined: 1.
struct RowTargets {
  const at::Tensor& logits;
  const at::Tensor& values;
  at::Tensor weights;
};

/// Weighted binary cross entropy with logits, mean over the labels of a row. Overwrites `gradient` with loss_scale *
/// d(sum of losses)/d(logits) with `gradients`. Returns [n] fp32.
at::Tensor binary_cross_entropy_rows(const RowTargets& rows, const LossOptions& options, at::Tensor& gradient);

/// Squared error, mean over the values of a row, as torch's MSELoss; likewise.
at::Tensor squared_error_rows(const RowTargets& rows, const LossOptions& options, at::Tensor& gradient);

}  // namespace neoloom::model
