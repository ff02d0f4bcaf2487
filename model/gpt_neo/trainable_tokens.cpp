// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/trainable_tokens.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

namespace neoloom::model {

at::Tensor TrainableTokens::replaced(const at::Tensor& words, const at::Tensor& tokens) const {
  const int64_t count = rows.size(0);
  const at::Tensor place = places.index_select(0, tokens);
  return at::where(place.lt(count).unsqueeze(1), rows.index_select(0, place.clamp_max(count - 1)), words);
}

void TrainableTokens::add_gradient(const at::Tensor& tokens, const at::Tensor& d_words) const {
  const int64_t count = rows.size(0);
  at::Tensor sums = at::zeros({count + 1, d_words.size(1)}, d_words.options());  // the last one of frozen tokens
  sums.index_add_(0, places.index_select(0, tokens), d_words);
  rows_grad.add_(sums.narrow(0, 0, count));
}

void TrainableTokens::replace_logits(at::Tensor& logits, const at::Tensor& normed) const {
  logits.index_copy_(1, ids, at::mm(normed, rows.t()));
}

at::Tensor TrainableTokens::take_logits_gradient(at::Tensor& d_logits, const at::Tensor& normed) const {
  const at::Tensor taken = d_logits.index_select(1, ids);
  d_logits.index_copy_(1, ids, at::zeros(taken.sizes(), taken.options()));
  const at::Tensor d = taken.to(at::kFloat);
  rows_grad.addmm_(d.t(), normed);
  return at::mm(d, rows);
}

TrainableTokens choose_tokens(const std::vector<int64_t>& ids, int64_t vocab_size, const at::Device& device) {
  std::vector<int64_t> places(static_cast<size_t>(vocab_size), static_cast<int64_t>(ids.size()));
  for (size_t i = 0; i < ids.size(); ++i) places[static_cast<size_t>(ids[i])] = static_cast<int64_t>(i);
  TrainableTokens tokens;
  tokens.ids = at::tensor(ids, at::kLong).to(device);
  tokens.places = at::tensor(places, at::kLong).to(device);
  return tokens;
}

}  // namespace neoloom::model
