// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/model.h"

namespace neoloom::model {

struct GenerationOptions {
  int64_t max_tokens = 100;               // new tokens
  double temperature = 1.0;               // 0: greedy
  int64_t top_k = 50;                     // 0: off; ties at the k-th value are kept
  double top_p = 1.0;                     // 1: off
  double repetition_penalty = 1.0;        // 1: off
  int64_t repetition_penalty_range = 10;  // last tokens of prompt + output; 0: off, negative: whole context
  bool count_occurrences = false;         // false: each distinct id once (Hugging Face)
  std::vector<int64_t> eos_token_ids;     // stop tokens, not returned
  uint64_t seed = 0;
};

/// Logits processors in Hugging Face's order: repetition penalty on raw logits, temperature, top_k, top_p.
/// Shapes: logits [V] fp32 host, changed in place; `context` all ids so far.
void process_logits(at::Tensor& logits, const std::vector<int64_t>& context, const GenerationOptions& options);

/// The next id from processed logits: the largest when temperature is 0 (the first of equals), else one draw whose
/// random number depends on (seed, position) alone. Throws: Error(kNumeric) when no logit is finite, or one is NaN.
int64_t choose_token(const at::Tensor& processed, const GenerationOptions& options, int64_t position);

/// Why generation ended: at a stop token, at max_tokens, or at the model's last position.
enum class Finish { kStop, kLength, kPositions };
/// "stop", "length" or "positions".
std::string finish_name(Finish finish);

struct Generated {
  std::vector<int64_t> ids;  // the new ones
  Finish finish = Finish::kLength;
};

/// Continues `prompt` (an empty one starts from eos). Calls `on_token` for each new id.
/// Throws: Error(kUsage) for options out of range, Error(kData) as check_prompt().
Generated generate(Model& model, const at::Tensor& params, std::vector<int64_t> prompt,
                   const GenerationOptions& options, const std::function<void(int64_t)>& on_token = {});

/// The checks of generate(), to run on all prompts before the first answer.
/// Throws: Error(kUsage) for an option out of range.
void check_options(const GenerationOptions& options);
/// Throws: Error(kData) when the prompt has more tokens than the model has positions, or ids outside its vocabulary;
/// `where` opens the message.
void check_prompt(const std::vector<int64_t>& prompt, const GptNeoConfig& config, const std::string& where = "");

}  // namespace neoloom::model
