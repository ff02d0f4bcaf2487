// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/cross_entropy.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sigmoid.h>

#include "model/cpu/elementwise.h"

namespace neoloom::model {
namespace {

/// Computes cross entropies by `rows`, then moves the share e of the targets to all classes: the loss grows by
/// e (x_target - mean x), its gradient by e (onehot - 1 / C).
template <typename Rows>
at::Tensor smoothed(at::Tensor& logits, const at::Tensor& targets, const LossOptions& options, int64_t classes,
                    Rows rows) {
  const double share = options.label_smoothing;
  if (share == 0.0) return rows();
  const at::Tensor column = targets.unsqueeze(1);
  const at::Tensor of_targets = at::gather(logits, 1, column);
  const at::Tensor excess = of_targets.squeeze(1).sub(logits.narrow(1, 0, classes).mean(1));
  at::Tensor losses = rows();
  losses.add_(excess, share);
  if (!options.gradients) return losses;
  const double moved = options.loss_scale * share;
  logits.narrow(1, 0, classes).sub_(moved / static_cast<double>(classes));
  logits.scatter_add_(1, column, at::full_like(of_targets, moved).to(logits.scalar_type()));
  return losses;
}

at::Tensor plain_rows(at::Tensor& logits, const at::Tensor& targets, const LossOptions& options) {
  at::Tensor losses = at::empty({logits.size(0)}, logits.options());
  const float factor = options.gradients ? static_cast<float>(options.loss_scale) : 0.0F;
  const int64_t width = logits.size(1);
  float* const rows = logits.mutable_data_ptr<float>();
  float* const loss = losses.mutable_data_ptr<float>();
  const at::Tensor contiguous = targets.contiguous();
  const int64_t* const target = contiguous.const_data_ptr<int64_t>();
  at::parallel_for(0, logits.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      loss[row] = cpu::cross_entropy_row(rows + row * width, width, target[row], factor);
    }
  });
  return losses;
}

at::Tensor cuda_plain_rows(at::Tensor& logits, const at::Tensor& targets, const LossOptions& options,
                           at::ScalarType type) {
  const double scale = options.loss_scale;
  const at::Tensor column = targets.unsqueeze(1);
  at::Tensor log_probabilities = at::log_softmax(logits, 1);
  logits.reset();  // frees its memory before the gradient is allocated
  const at::Tensor of_targets = at::gather(log_probabilities, 1, column);
  if (options.gradients) {
    at::Tensor gradient = at::empty(log_probabilities.sizes(), log_probabilities.options().dtype(type));
    if (scale == 1.0) {
      at::exp_out(gradient, log_probabilities);
    } else {
      at::mul_out(gradient, log_probabilities.exp_(), at::scalar_tensor(scale));
    }
    // Writes p - 1 for the target, from the p before rounding.
    gradient.scatter_(1, column, of_targets.exp().sub_(1.0).mul_(scale).to(type));
    logits = gradient;
  }
  return of_targets.squeeze(1).neg();
}

/// Returns the factor of each gradient of a mean over the columns.
double mean_scale(const RowTargets& rows, const LossOptions& options) {
  return options.loss_scale / static_cast<double>(rows.logits.size(1));
}

}  // namespace

at::Tensor cross_entropy_rows(at::Tensor& logits, const at::Tensor& targets, const LossOptions& options) {
  return smoothed(logits, targets, options, logits.size(1), [&] { return plain_rows(logits, targets, options); });
}

at::Tensor cuda_cross_entropy_rows(at::Tensor& logits, const at::Tensor& targets, const LossOptions& options,
                                   int64_t classes, at::ScalarType type) {
  return smoothed(logits, targets, options, classes, [&] { return cuda_plain_rows(logits, targets, options, type); });
}

at::Tensor binary_cross_entropy_rows(const RowTargets& rows, const LossOptions& options, at::Tensor& gradient) {
  // This form, max(x, 0) - x y + log(1 + exp(-|x|)), overflows for no x.
  const at::Tensor& x = rows.logits;
  at::Tensor losses = x.clamp_min(0).sub(x.mul(rows.values)).add(x.abs().neg().exp().log1p());
  if (rows.weights.defined()) losses.mul_(rows.weights);
  if (options.gradients) {
    gradient = at::sigmoid(x).sub(rows.values).mul(mean_scale(rows, options));
    if (rows.weights.defined()) gradient.mul_(rows.weights);
  }
  return losses.mean(1);
}

at::Tensor squared_error_rows(const RowTargets& rows, const LossOptions& options, at::Tensor& gradient) {
  const at::Tensor errors = rows.logits.sub(rows.values);
  if (options.gradients) gradient = errors.mul(2.0 * mean_scale(rows, options));
  return errors.square().mean(1);
}

}  // namespace neoloom::model
