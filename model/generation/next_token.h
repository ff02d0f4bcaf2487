// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace neoloom::model {

struct GenerationOptions {
  int64_t max_tokens = 100;               // new tokens
  double temperature = 1.0;               // 0: greedy
  int64_t top_k = 50;                     // 0: off; ties at the k-th value are kept
  double top_p = 1.0;                     // 1: off
  double min_p = 0.0;                     // 0: off; share of the likeliest token's probability
  double repetition_penalty = 1.0;        // 1: off
  int64_t repetition_penalty_range = 10;  // last tokens of prompt + output; 0: off, negative: whole context
  bool count_occurrences = false;         // false: each distinct id once (Hugging Face)
  int64_t no_repeat_ngram_size = 0;       // 0: off
  int64_t min_new_tokens = 0;             // no stop token before
  std::vector<int64_t> eos_token_ids;     // stop tokens, not returned
  uint64_t seed = 0;
};

/// Changes logits in Hugging Face's order: repetition penalty on raw logits, repeated n-grams, temperature, top_k,
/// top_p, min_p. Greedy options (temperature 0) end after the n-grams. Shapes: logits [V] fp32 host, changed in place;
/// `context` all ids so far.
void process_logits(at::Tensor& logits, const std::vector<int64_t>& context, const GenerationOptions& options);

/// Makes a token impossible. Ids outside the vocabulary are ignored.
void exclude_token(at::Tensor& logits, int64_t id);

/// The next id from processed logits: the largest when temperature is 0 (the first of equals), else one draw whose
/// random number depends on (seed, sequence, position) alone.
/// Throws: Error(kNumeric) when no logit is finite, or one is NaN.
int64_t choose_token(const at::Tensor& processed, const GenerationOptions& options, int64_t position,
                     int64_t sequence = 0);

/// Throws: Error(kUsage) for an option out of range.
void check_options(const GenerationOptions& options);

}  // namespace neoloom::model
