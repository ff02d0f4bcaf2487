// SPDX-License-Identifier: Apache-2.0
#include "model/lora/lora.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>

#include "model/cpu/low_rank_gemm.h"

namespace neoloom::model {

namespace {

/// Adds u v to the low-rank term. Shapes: u [n, r], v [r, m].
void join(const at::Tensor& u, const at::Tensor& v, Epilogue& terms) {
  const bool first = !terms.low_rank_u.defined();
  terms.low_rank_u = first ? u : at::cat({terms.low_rank_u, u}, 1);
  terms.low_rank_v = first ? v : at::cat({terms.low_rank_v, v}, 0);
}

}  // namespace

at::Tensor LoraBranch::dropped(const at::Tensor& x, const std::vector<RowKey>& keys) const {
  return dropout.active() ? dropout.apply(x.to(at::kFloat), keys) : x;
}

at::Tensor LoraBranch::down(const at::Tensor& dropped) const { return low_rank_gemm(dropped, a.t()); }

Epilogue LoraBranch::output_terms(const at::Tensor& down) const {
  return {.low_rank_u = down, .low_rank_v = b.mul(scaling).t().contiguous()};
}

void LoraBranch::join_forward(const at::Tensor& x, const at::Tensor& down, Epilogue& terms) const {
  const Epilogue output = output_terms(down);
  join(output.low_rank_u, output.low_rank_v, terms);
  if (a0.defined()) join(low_rank_gemm(x, a0.t()), b0.mul(-scaling).t(), terms);
  if (!dora.present()) return;
  terms.low_rank_v.mul_(dora.gain);
  terms.scale = dora.gain;
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
    join(d_down, a, terms);
  }
  if (a0.defined()) join(low_rank_gemm(dy, b0.mul(-scaling)), a0, terms);
  return terms;
}

}  // namespace neoloom::model
