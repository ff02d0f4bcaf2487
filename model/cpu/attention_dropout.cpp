// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/attention_dropout.h"

#include <ATen/Context.h>
#include <ATen/ops/empty_like.h>

#include <mutex>
#include <optional>

#include "model/cpu/random_words.h"
#include "runtime/core/rng.h"

namespace neoloom::model {

namespace {

// Apart from the places of other random numbers, which are below it.
constexpr uint32_t kFirstPlace = 0x80000000U;

/// Returns a generator of its own, so that the default one's state stays as it is.
at::Generator seeded_generator(const at::Device& device, uint64_t seed) {
  at::Generator shared = at::globalContext().defaultGenerator(device);
  at::Generator own;
  {
    const std::lock_guard<std::mutex> lock(shared.mutex());
    own = shared.clone();
  }
  own.set_current_seed(seed);
  return own;
}

}  // namespace

void AttentionDropout::draw(RowKey query, int64_t head, int64_t begin, int64_t end, float* factors) const {
  const RandomWords words(seed, epoch, kFirstPlace + static_cast<uint32_t>(layer * num_heads + head));
  const DropoutFactor factor(probability);
  words.for_row(query, begin, end, [&](int64_t key, uint32_t word) { factors[key - begin] = factor(word); });
}

at::Tensor AttentionDropout::draw_on_cuda(const at::Tensor& scores, int64_t sample, int64_t first_query) const {
  at::Tensor factors = at::empty_like(scores);
  std::optional<at::Generator> generator;
  if (!scores.is_meta()) {
    uint64_t key = core::mix64(seed);
    for (const int64_t part : {epoch, layer, sample, first_query}) key = core::mix64(key ^ static_cast<uint64_t>(part));
    generator = seeded_generator(scores.device(), key);
  }
  return factors.bernoulli_(1.0 - probability, generator).mul_(1.0 / (1.0 - probability));
}

}  // namespace neoloom::model
