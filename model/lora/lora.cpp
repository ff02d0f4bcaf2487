// SPDX-License-Identifier: Apache-2.0
#include "model/lora/lora.h"

#include <ATen/ops/mm.h>

#include "model/cpu/low_rank_gemm.h"

namespace neoloom::model {

at::Tensor LoraBranch::dropped(const at::Tensor& x, const std::vector<RowKey>& keys) const {
  return dropout.active() ? dropout.apply(x.to(at::kFloat), keys) : x;
}

at::Tensor LoraBranch::down(const at::Tensor& x, const std::vector<RowKey>& keys) const {
  return low_rank_gemm(dropped(x, keys), a.t());
}

void LoraBranch::join_forward(const at::Tensor& down, Epilogue& terms) const {
  terms.low_rank_u = down;
  terms.low_rank_v = b.mul(scaling).t().contiguous();
}

Epilogue LoraBranch::backward(const at::Tensor& dy, const at::Tensor& x, const std::vector<RowKey>& keys,
                              const at::Tensor& down, bool needs_dx) const {
  const at::Tensor d_down = low_rank_gemm(dy, b.mul(scaling));  // [n, r]
  at::Tensor b_out = b_grad;
  b_out.copy_(low_rank_outer_product(down, dy).t()).mul_(scaling);
  at::Tensor a_out = a_grad;
  a_out.copy_(low_rank_outer_product(d_down, dropped(x, keys)));
  Epilogue terms;
  if (!needs_dx) return terms;
  if (dropout.active()) {
    terms.residual = dropout.apply(at::mm(d_down, a), keys);  // backward masks and scales as forward does
  } else {
    terms.low_rank_u = d_down;
    terms.low_rank_v = a;
  }
  return terms;
}

}  // namespace neoloom::model
