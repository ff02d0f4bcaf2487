// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/probes/attention_reference.h"

#include <ATen/ops/cat.h>

#include "model/cpu/attention.h"

namespace neoloom::probes {

AttentionSlice::AttentionSlice(const AttentionCase& layer)
    : layer_(layer), first_(layer.segments().front()), last_(layer.segments().back()) {}

at::Tensor AttentionSlice::of(const at::Tensor& rows) const {
  const auto sample = [&](const model::SequenceSpan& span) { return rows.narrow(0, span.key_begin, span.key_rows); };
  const at::Tensor both = at::cat({sample(first_), sample(last_)}, 0);
  return at::cat({both.select(1, 0), both.select(1, layer_.heads - 1)}, 1);
}

std::vector<at::Tensor> AttentionSlice::reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                  const at::Tensor& grad) const {
  const auto fp32 = [&](const at::Tensor& rows) { return of(rows).to(at::kFloat); };
  const int64_t split = first_.key_rows;
  const std::vector<model::SequenceSpan> segments = {{0, split, 0, split},
                                                     {split, last_.key_rows, split, last_.key_rows}};
  const model::Attention attention(/*num_heads=*/2, layer_.window, /*on_cuda=*/true);
  std::vector<at::Tensor> results = {attention.forward(fp32(q), fp32(k), fp32(v), segments)};
  if (!grad.defined()) return results;
  const auto gradients = attention.backward(fp32(grad), fp32(q), fp32(k), fp32(v), segments);
  results.insert(results.end(), {gradients.dq, gradients.dk, gradients.dv});
  return results;
}

}  // namespace neoloom::probes
