// SPDX-License-Identifier: Apache-2.0
#include "model/adapters/device_lora.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/native_dropout.h>
#include <ATen/ops/native_dropout_backward.h>

#include <tuple>

namespace neoloom::model {

namespace {

/// x * mask / (1 - p)
at::Tensor masked(const LoraBranch& lora, const at::Tensor& x, const at::Tensor& mask) {
  return mask.defined() ? at::native_dropout_backward(x, mask, 1.0 / (1.0 - lora.dropout.probability)) : x;
}

}  // namespace

void add_adapter_on_device(const LoraBranch& lora, at::Tensor& y, const at::Tensor& x, AdapterSaved& saved) {
  if (!lora.present()) return;
  if (!saved.reduced.defined()) {
    at::Tensor dropped = x;
    if (lora.dropout.active()) {
      std::tie(dropped, saved.mask) = at::native_dropout(x, lora.dropout.probability, /*train=*/true);
    }
    saved.reduced = at::mm(dropped, lora.a.t());
  }
  y.addmm_(saved.reduced, lora.b.t(), /*beta=*/1, /*alpha=*/lora.scaling);
}

void adapter_backward_on_device(const LoraBranch& lora, const at::Tensor& dy, const at::Tensor& x,
                                const AdapterSaved& saved, at::Tensor* dx) {
  if (!lora.present()) return;
  const at::Tensor d_reduced = at::mm(dy, lora.b);  // [n, r], without the scale
  at::Tensor a_grad = lora.a_grad;
  at::Tensor b_grad = lora.b_grad;
  b_grad.addmm_(dy.t(), saved.reduced, /*beta=*/0, /*alpha=*/lora.scaling);
  a_grad.addmm_(d_reduced.t(), masked(lora, x, saved.mask), /*beta=*/0, /*alpha=*/lora.scaling);
  if (dx == nullptr) return;
  if (saved.mask.defined()) {
    dx->add_(masked(lora, at::mm(d_reduced, lora.a), saved.mask), lora.scaling);
  } else {
    dx->addmm_(d_reduced, lora.a, /*beta=*/1, /*alpha=*/lora.scaling);
  }
}

}  // namespace neoloom::model
