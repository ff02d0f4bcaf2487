// SPDX-License-Identifier: Apache-2.0
#include "model/generation/next_token.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/cumsum.h>
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

/// Excludes each token that would complete an n-gram of the context a second time.
void exclude_repeated_ngrams(at::Tensor& logits, const std::vector<int64_t>& context, int64_t ngram_size) {
  const auto size = static_cast<int64_t>(context.size());
  if (ngram_size == 0 || size < ngram_size) return;
  float* scores = logits.mutable_data_ptr<float>();
  const auto last = context.end() - (ngram_size - 1);  // the n - 1 tokens that the next one follows
  for (auto begin = context.begin(); begin + ngram_size <= context.end(); ++begin) {
    if (std::equal(last, context.end(), begin)) scores[*(begin + ngram_size - 1)] = kExcluded;
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

void keep_min_p(at::Tensor& logits, double min_p) {
  if (min_p == 0.0) return;
  const at::Tensor probabilities = at::softmax(logits, -1);
  logits.masked_fill_(probabilities.lt(probabilities.max().mul(min_p)), kExcluded);
}

/// Draws a token: the inverse of the cumulative distribution at a uniform number that depends on (seed, sequence,
/// position) alone. Models have fewer than 2^32 positions.
int64_t draw(const at::Tensor& logits, uint64_t seed, int64_t sequence, int64_t position) {
  const std::array<uint32_t, 4> counter = {static_cast<uint32_t>(position), 0, kGenerationStream,
                                           static_cast<uint32_t>(sequence)};
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
  core::require(options.min_p >= 0.0 && options.min_p <= 1.0, ErrorKind::kUsage,
                "min_p is {}: expected a number from 0 (off) to 1", options.min_p);
  core::require(options.no_repeat_ngram_size >= 0, ErrorKind::kUsage,
                "no_repeat_ngram_size is {}: expected 0 (off) or more", options.no_repeat_ngram_size);
  core::require(options.min_new_tokens >= 0, ErrorKind::kUsage, "min_new_tokens is {}: expected 0 or more",
                options.min_new_tokens);
}

void exclude_token(at::Tensor& logits, int64_t id) {
  if (id >= 0 && id < logits.numel()) logits.mutable_data_ptr<float>()[id] = kExcluded;
}

void process_logits(at::Tensor& logits, const std::vector<int64_t>& context, const GenerationOptions& options) {
  check_options(options);
  core::require(logits.dim() == 1 && logits.scalar_type() == at::kFloat && logits.is_contiguous(), ErrorKind::kInternal,
                "process_logits wants contiguous fp32 logits of one position");
  penalize_repetition(logits, context, options);
  exclude_repeated_ngrams(logits, context, options.no_repeat_ngram_size);
  if (options.temperature == 0.0) return;
  logits.div_(options.temperature);
  keep_top_k(logits, options.top_k);
  keep_top_p(logits, options.top_p);
  keep_min_p(logits, options.min_p);
}

int64_t choose_token(const at::Tensor& processed, const GenerationOptions& options, int64_t position,
                     int64_t sequence) {
  const float largest = processed.max().item<float>();
  core::require(std::isfinite(largest), ErrorKind::kNumeric,
                "the logits at position {} are not finite: try runtime.compute_dtype float32 or bfloat16", position);
  if (options.temperature == 0.0) return at::argmax(processed).item<int64_t>();
  return draw(processed, options.seed, sequence, position);
}

}  // namespace neoloom::model
