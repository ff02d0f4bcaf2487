// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace neoloom::model {

/// The tokens whose rows of wte train (peft_config.trainable_token_indices). Their rows take the place of the frozen
/// ones where words are looked up, and in a head that is tied to wte, as in PEFT's TrainableTokensLayer.
struct TrainableTokens {
  at::Tensor ids;              // [k] int64
  at::Tensor places;           // [V] int64: the row of each token in `rows`; k: it is frozen
  at::Tensor rows, rows_grad;  // [k, h] fp32; undefined: none, frozen
  bool in_head = false;        // a causal LM's head is tied to wte

  bool present() const { return rows.defined(); }

  /// The words of tokens, with the trained rows. Shapes: words [N, h] fp32, tokens [N] -> [N, h], a new tensor.
  at::Tensor replaced(const at::Tensor& words, const at::Tensor& tokens) const;
  /// Adds the gradient of these words to that of the rows.
  void add_gradient(const at::Tensor& tokens, const at::Tensor& d_words) const;

  /// Writes the logits of the trained rows over those of the frozen ones. Shapes: logits [n, >= V], normed [n, h] fp32.
  void replace_logits(at::Tensor& logits, const at::Tensor& normed) const;
  /// Adds the gradient of these logits to that of the rows and sets it to 0 in `d_logits`, so that the frozen rows add
  /// nothing to the gradient of `normed`. Returns what the trained rows add to it: [n, h] fp32. Rows of `normed` that
  /// do not count are 0.
  at::Tensor take_logits_gradient(at::Tensor& d_logits, const at::Tensor& normed) const;
};

/// Returns `ids` and `places` of these tokens.
TrainableTokens choose_tokens(const std::vector<int64_t>& ids, int64_t vocab_size, const at::Device& device);

}  // namespace neoloom::model
