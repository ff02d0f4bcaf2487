// SPDX-License-Identifier: Apache-2.0
#include "model/lora/lora_cuda.h"

#include <ATen/ops/native_dropout.h>
#include <ATen/ops/native_dropout_backward.h>

#include <tuple>

namespace neoloom::model {

namespace {

/// x * mask / (1 - p)
at::Tensor masked(const LoraBranch& lora, const at::Tensor& x, const at::Tensor& mask) {
  return mask.defined() ? at::native_dropout_backward(x, mask, 1.0 / (1.0 - lora.dropout.probability)) : x;
}

void reduce(const Products& products, const LoraBranch& lora, const at::Tensor& x, AdapterSaved& saved) {
  if (saved.reduced.defined()) return;
  at::Tensor dropped = x;
  if (lora.dropout.active()) {
    std::tie(dropped, saved.mask) = at::native_dropout(x, lora.dropout.probability, /*train=*/true);
  }
  saved.reduced = products.device_product(dropped, lora.narrow_a.t(), /*wide=*/false);
}

}  // namespace

at::Tensor adapter_output_on_device(const Products& products, const LoraBranch& lora, const at::Tensor& x,
                                    AdapterSaved& saved) {
  reduce(products, lora, x, saved);
  return products.device_product(saved.reduced, lora.narrow_b.t(), /*wide=*/false);
}

void add_adapter_on_device(const Products& products, const LoraBranch& lora, at::Tensor& y, const at::Tensor& x,
                           AdapterSaved& saved) {
  reduce(products, lora, x, saved);
  products.add_device_product(y, saved.reduced, lora.narrow_b.t(), /*beta=*/1, lora.scaling);
}

void adapter_backward_on_device(const Products& products, const LoraBranch& lora, const at::Tensor& dy,
                                const at::Tensor& x, const AdapterSaved& saved, at::Tensor* dx) {
  const at::Tensor d_reduced = products.device_product(dy, lora.narrow_b, /*wide=*/false);  // [n, r], without the scale
  products.add_device_product(lora.b_grad, dy.t(), saved.reduced, /*beta=*/0, lora.scaling);
  products.add_device_product(lora.a_grad, d_reduced.t(), masked(lora, x, saved.mask), /*beta=*/0, lora.scaling);
  if (dx == nullptr) return;
  if (saved.mask.defined()) {
    dx->add_(masked(lora, products.device_product(d_reduced, lora.narrow_a, /*wide=*/true), saved.mask), lora.scaling);
  } else {
    products.add_device_product(*dx, d_reduced, lora.narrow_a, /*beta=*/1, lora.scaling);
  }
}

}  // namespace neoloom::model
