// SPDX-License-Identifier: Apache-2.0
#include "model/lora/lora.h"

#include <ATen/ops/mm.h>

#include "model/cpu/low_rank_gemm.h"

namespace neoloom::model {

at::Tensor LoraBranch::dropped(const at::Tensor& x, const std::vector<RowKey>& keys) const {
  return dropout.active() ? dropout.apply(x.to(at::kFloat), keys) : x;
}

at::Tensor LoraBranch::reduce(const at::Tensor& x, const std::vector<RowKey>& keys) const {
  return thin_product(dropped(x, keys), a.t());
}

void LoraBranch::join_forward(const at::Tensor& reduced, ProductTerms& terms) const {
  terms.thin_left = reduced;
  terms.thin_right = b.mul(scaling).t().contiguous();
}

ProductTerms LoraBranch::backward(const at::Tensor& dy, const at::Tensor& x, const std::vector<RowKey>& keys,
                                  const at::Tensor& reduced, bool wants_dx) const {
  const at::Tensor d_reduced = thin_product(dy, b.mul(scaling));  // [n, r]
  at::Tensor b_out = b_grad;
  b_out.copy_(thin_outer_product(reduced, dy).t()).mul_(scaling);
  at::Tensor a_out = a_grad;
  a_out.copy_(thin_outer_product(d_reduced, dropped(x, keys)));
  ProductTerms terms;
  if (!wants_dx) return terms;
  if (dropout.active()) {
    terms.addend = dropout.apply(at::mm(d_reduced, a), keys);  // forward and backward scale alike
  } else {
    terms.thin_left = d_reduced;
    terms.thin_right = a;
  }
  return terms;
}

}  // namespace neoloom::model
