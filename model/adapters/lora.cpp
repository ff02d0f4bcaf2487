// SPDX-License-Identifier: Apache-2.0
#include "model/adapters/lora.h"

#include <ATen/ops/mm.h>

namespace neoloom::model {

void LoraBranch::add_forward(at::Tensor& y, const at::Tensor& x, const std::vector<RowKey>& keys) const {
  if (!present()) return;
  const at::Tensor reduced = at::mm(dropout.active() ? dropout.apply(x, keys) : x, a.t());  // [n, r]
  y.addmm_(reduced, b.t(), /*beta=*/1, /*alpha=*/scaling);
}

void LoraBranch::backward(const at::Tensor& dy, const at::Tensor& x, const std::vector<RowKey>& keys,
                          at::Tensor* dx) const {
  if (!present()) return;
  const at::Tensor dropped = dropout.active() ? dropout.apply(x, keys) : x;
  const at::Tensor reduced = at::mm(dropped, a.t()).mul_(scaling);  // [n, r]
  // Products with a thin side run several times faster with the thin side on the left, or transposed and contiguous.
  const at::Tensor d_reduced = at::mm(dy, b.t().contiguous().t()).mul_(scaling);  // [n, r]
  b_grad.copy_(at::mm(reduced.t(), dy).t());
  at::Tensor a_out = a_grad;
  at::mm_out(a_out, d_reduced.t(), dropped);
  if (dx == nullptr) return;
  if (dropout.active()) {
    dx->add_(dropout.apply(at::mm(d_reduced, a), keys));  // the mask is symmetric: forward and backward scale alike
  } else {
    dx->addmm_(d_reduced, a);
  }
}

}  // namespace neoloom::model
