// SPDX-License-Identifier: Apache-2.0
#include "model/linear.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/sum.h>

namespace neoloom::model {

at::Tensor Linear::forward(Products& products, const at::Tensor& x, const std::vector<RowKey>& keys,
                           const at::Tensor& input) const {
  at::Tensor y = products.forward(input.defined() ? input : x, weight, bias);
  lora.add_forward(y, x, keys);
  return y;
}

at::Tensor Linear::backward(Products& products, const at::Tensor& dy, const at::Tensor& x,
                            const std::vector<RowKey>& keys, bool wants_dx) const {
  at::Tensor dx;
  if (wants_dx) dx = products.input_gradient(dy, weight);
  write_weight_gradients(dy, x);
  lora.backward(dy, x, keys, wants_dx ? &dx : nullptr);
  return dx;
}

void Linear::backward_into(Products& products, const at::Tensor& dy, const at::Tensor& x,
                           const std::vector<RowKey>& keys, at::Tensor* dx) const {
  if (dx != nullptr) products.add_input_gradient(*dx, dy, weight);
  write_weight_gradients(dy, x);
  lora.backward(dy, x, keys, dx);
}

void Linear::write_weight_gradients(const at::Tensor& dy, const at::Tensor& x) const {
  if (weight_grad.defined()) {
    at::Tensor out = weight_grad;
    at::mm_out(out, dy.t(), x);
  }
  if (bias_grad.defined()) {
    at::Tensor out = bias_grad;
    at::sum_out(out, dy, {0});
  }
}

at::Tensor Norm::forward(const at::Tensor& x, Statistics* statistics) const {
  auto [y, mean, rstd] = at::native_layer_norm(x, {x.size(1)}, weight, bias, epsilon);
  if (statistics != nullptr) *statistics = {mean, rstd};
  return y;
}

at::Tensor Norm::backward(const at::Tensor& dy, const at::Tensor& x, const Statistics& statistics) const {
  const bool trains = weight_grad.defined();
  auto [dx, d_weight, d_bias] = at::native_layer_norm_backward(dy, x, {x.size(1)}, statistics.mean, statistics.rstd,
                                                               weight, bias, {true, trains, trains});
  if (trains) {
    weight_grad.copy_(d_weight);
    bias_grad.copy_(d_bias);
  }
  return dx;
}

}  // namespace neoloom::model
