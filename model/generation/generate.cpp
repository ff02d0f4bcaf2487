// SPDX-License-Identifier: Apache-2.0
#include "model/generation/generate.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>

#include "runtime/core/error.h"
#include "runtime/core/rng.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;

constexpr float kExcluded = -std::numeric_limits<float>::infinity();
constexpr uint32_t kGenerationStream = 0x67656E31;  // keeps these draws apart from other users of a seed

/// Applies the repetition penalty of Keskar et al. 2019 (arXiv 1909.05858), section 4.1, with Hugging Face's rule for
/// negative logits.
void penalize_repetition(at::Tensor& logits, const std::vector<int64_t>& context, const GenerationOptions& options) {
  const auto size = static_cast<int64_t>(context.size());
  const int64_t range = options.repetition_penalty_range < 0 ? size : std::min(options.repetition_penalty_range, size);
  if (options.repetition_penalty == 1.0 || range == 0) return;
  const auto penalty = static_cast<float>(options.repetition_penalty);
  float* scores = logits.mutable_data_ptr<float>();
  const int64_t vocabulary = logits.numel();
  std::set<int64_t> seen;
  for (int64_t i = size - range; i < size; ++i) {
    const int64_t id = context[static_cast<size_t>(i)];
    core::require(id >= 0 && id < vocabulary, ErrorKind::kData, "token id {} is outside the vocabulary of {}", id,
                  vocabulary);
    if (!seen.insert(id).second && !options.count_occurrences) continue;
    scores[id] = scores[id] < 0.0F ? scores[id] * penalty : scores[id] / penalty;
  }
}

void keep_top_k(at::Tensor& logits, int64_t top_k) {
  if (top_k == 0 || top_k >= logits.numel()) return;
  const float least = std::get<0>(at::topk(logits, top_k)).min().item<float>();
  logits.masked_fill_(logits.lt(least), kExcluded);
}

void keep_top_p(at::Tensor& logits, double top_p) {
  if (top_p >= 1.0) return;
  const auto [sorted, order] = at::sort(logits, /*stable=*/true, /*dim=*/-1, /*descending=*/false);
  at::Tensor drop = at::cumsum(at::softmax(sorted, -1), -1).le(1.0 - top_p);
  drop[-1] = false;  // the likeliest token always stays
  logits.masked_fill_(at::zeros_like(drop).scatter(0, order, drop), kExcluded);
}

/// Draws a token: the inverse of the cumulative distribution at a uniform number that depends on (seed, position)
/// alone.
int64_t draw(const at::Tensor& logits, uint64_t seed, uint64_t position) {
  const std::array<uint32_t, 4> counter = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32),
                                           kGenerationStream, 0};
  const auto words = core::philox4x32(counter, {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const float* scores = logits.const_data_ptr<float>();
  const int64_t count = logits.numel();
  const double largest = *std::max_element(scores, scores + count);
  double total = 0.0;
  for (int64_t id = 0; id < count; ++id) total += std::exp(scores[id] - largest);
  double rest = core::uniform01(words[0], words[1]) * total;
  int64_t last_possible = 0;
  for (int64_t id = 0; id < count; ++id) {
    const double weight = std::exp(scores[id] - largest);
    if (weight == 0.0) continue;
    last_possible = id;
    rest -= weight;
    if (rest < 0.0) return id;
  }
  return last_possible;  // rounding may leave a small rest
}

}  // namespace

void check_options(const GenerationOptions& options) {
  const auto finite_at_least = [](double value, double least) { return std::isfinite(value) && value >= least; };
  core::require(options.max_tokens >= 0, ErrorKind::kUsage, "max_tokens is {}: expected 0 or more", options.max_tokens);
  core::require(finite_at_least(options.temperature, 0.0), ErrorKind::kUsage,
                "temperature is {}: expected 0 (greedy) or more", options.temperature);
  core::require(options.top_k >= 0, ErrorKind::kUsage, "top_k is {}: expected 0 (off) or more", options.top_k);
  core::require(options.top_p > 0.0 && options.top_p <= 1.0, ErrorKind::kUsage,
                "top_p is {}: expected a number above 0 and at most 1 (off)", options.top_p);
  core::require(std::isfinite(options.repetition_penalty) && options.repetition_penalty > 0.0, ErrorKind::kUsage,
                "repetition_penalty is {}: expected a number above 0 (1: off)", options.repetition_penalty);
}

void check_prompt(const std::vector<int64_t>& prompt, const GptNeoConfig& config, const std::string& where) {
  core::require(static_cast<int64_t>(prompt.size()) <= config.max_position_embeddings, ErrorKind::kData,
                "{}the prompt has {} tokens, the model takes {}; shorten it", where, prompt.size(),
                config.max_position_embeddings);
  for (const int64_t id : prompt) {
    core::require(id >= 0 && id < config.vocab_size, ErrorKind::kData,
                  "{}token id {} of the prompt is outside the model's vocabulary of {}: "
                  "tokenizer and model do not belong together",
                  where, id, config.vocab_size);
  }
}

std::string finish_name(Finish finish) {
  constexpr std::array kNames = {"stop", "length", "positions"};
  return kNames[static_cast<size_t>(finish)];
}

void process_logits(at::Tensor& logits, const std::vector<int64_t>& context, const GenerationOptions& options) {
  check_options(options);
  core::require(logits.dim() == 1 && logits.scalar_type() == at::kFloat && logits.is_contiguous(), ErrorKind::kInternal,
                "process_logits wants contiguous fp32 logits of one position");
  penalize_repetition(logits, context, options);
  if (options.temperature == 0.0) return;
  logits.div_(options.temperature);
  keep_top_k(logits, options.top_k);
  keep_top_p(logits, options.top_p);
}

int64_t choose_token(const at::Tensor& processed, const GenerationOptions& options, int64_t position) {
  const float largest = processed.max().item<float>();
  core::require(std::isfinite(largest), ErrorKind::kNumeric,
                "the logits at position {} are not finite: try runtime.compute_dtype float32 or bfloat16", position);
  if (options.temperature == 0.0) return at::argmax(processed).item<int64_t>();
  return draw(processed, options.seed, static_cast<uint64_t>(position));
}

Generated generate(Model& model, const at::Tensor& params, std::vector<int64_t> prompt,
                   const GenerationOptions& options, const std::function<void(int64_t)>& on_token) {
  check_options(options);
  const GptNeoConfig& config = model.setup().config;
  if (prompt.empty()) prompt.push_back(config.eos_token_id);
  check_prompt(prompt, config);
  const auto prompt_tokens = static_cast<int64_t>(prompt.size());
  // Subtracts, because a sum with max_tokens, which may be any number, could overflow.
  const bool limited = options.max_tokens <= config.max_position_embeddings - prompt_tokens;
  const int64_t end = limited ? prompt_tokens + options.max_tokens : config.max_position_embeddings;

  Generated result{.ids = {}, .finish = limited ? Finish::kLength : Finish::kPositions};
  if (prompt_tokens >= end) return result;
  const auto decoder = model.make_decoder(params, end);
  std::vector<int64_t> context = prompt;
  std::vector<int64_t> next = std::move(prompt);
  while (static_cast<int64_t>(context.size()) < end) {
    at::Tensor logits = decoder->feed(next).contiguous();
    process_logits(logits, context, options);
    const int64_t id = choose_token(logits, options, static_cast<int64_t>(context.size()));
    if (std::find(options.eos_token_ids.begin(), options.eos_token_ids.end(), id) != options.eos_token_ids.end()) {
      result.finish = Finish::kStop;
      break;
    }
    result.ids.push_back(id);
    context.push_back(id);
    next = {id};
    if (on_token) on_token(id);
  }
  return result;
}

}  // namespace neoloom::model
