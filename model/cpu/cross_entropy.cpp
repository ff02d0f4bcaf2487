// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/cross_entropy.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sigmoid.h>

#include "model/cpu/elementwise.h"

namespace neoloom::model {

at::Tensor cross_entropy_rows(at::Tensor& logits, const at::Tensor& targets, double scale, bool needs_gradient) {
  at::Tensor losses = at::empty({logits.size(0)}, logits.options());
  const float factor = needs_gradient ? static_cast<float>(scale) : 0.0F;
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

at::Tensor cuda_cross_entropy_rows(at::Tensor& logits, const at::Tensor& targets, double scale, bool needs_gradient,
                                   at::ScalarType type) {
  const at::Tensor column = targets.unsqueeze(1);
  at::Tensor log_probabilities = at::log_softmax(logits, 1);
  logits.reset();  // frees its memory before the gradient is allocated
  const at::Tensor of_targets = at::gather(log_probabilities, 1, column);
  if (needs_gradient) {
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

at::Tensor binary_cross_entropy_rows(const at::Tensor& logits, const at::Tensor& labels, double scale,
                                     at::Tensor* gradient) {
  // This form, max(x, 0) - x y + log(1 + exp(-|x|)), overflows for no x.
  const at::Tensor losses = logits.clamp_min(0).sub(logits.mul(labels)).add(logits.abs().neg().exp().log1p());
  if (gradient != nullptr) {
    *gradient = at::sigmoid(logits).sub(labels).mul(scale / static_cast<double>(logits.size(1)));
  }
  return losses.mean(1);
}

}  // namespace neoloom::model
