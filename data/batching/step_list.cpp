// SPDX-License-Identifier: Apache-2.0
#include "data/batching/step_list.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <utility>

#include "runtime/core/error.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using core::require;

// From this many elements on, torch.randperm draws in another way.
constexpr int64_t kPermutationLimit = std::numeric_limits<uint32_t>::max() / 20;
// As in transformers' LengthGroupedSampler, a mega-batch has 50 batches, or fewer if there would be less than four
// mega-batches.
constexpr int64_t kMegaBatchBatches = 50;
constexpr int64_t kFewestMegaBatches = 4;

void sort_mega_batches(std::vector<int64_t>& order, std::span<const int32_t> lengths, int64_t batch_size) {
  const auto n = static_cast<int64_t>(order.size());
  const int64_t batches = std::clamp<int64_t>(n / (batch_size * kFewestMegaBatches), 1, kMegaBatchBatches);
  for (int64_t begin = 0; begin < n; begin += batches * batch_size) {
    const int64_t end = std::min(n, begin + batches * batch_size);
    std::stable_sort(order.begin() + begin, order.begin() + end,
                     [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
  }
}

/// Puts the longest sample first, so that a lack of memory shows at once.
void put_longest_first(std::vector<int64_t>& order, std::span<const int32_t> lengths) {
  const auto longest =
      std::max_element(order.begin(), order.end(), [&](int64_t a, int64_t b) { return lengths[a] < lengths[b]; });
  std::iter_swap(order.begin(), longest);
}

/// Shuffles the full batches behind the first one. The incomplete last batch stays last, where it is cut off.
void shuffle_batches(std::vector<int64_t>& order, int64_t batch_size, uint64_t seed) {
  const int64_t full_batches = static_cast<int64_t>(order.size()) / batch_size;
  if (full_batches < 3) return;
  const std::vector<int64_t> before = order;
  const std::vector<int64_t> permutation = seeded_permutation(full_batches - 1, seed);
  for (int64_t batch = 1; batch < full_batches; ++batch) {
    const auto from = before.begin() + (permutation[batch - 1] + 1) * batch_size;
    std::copy(from, from + batch_size, order.begin() + batch * batch_size);
  }
}

/// Divides a step's samples anew, so that its micro-batches have about equal numbers of tokens. The longest sample goes
/// first, each to the micro-batch with the fewest tokens that has vacant. Micro-batches keep their sizes and the order
/// of their samples.
void balance_tokens(std::vector<std::vector<int64_t>>& micro_batches, std::span<const int32_t> lengths) {
  std::vector<int64_t> samples;
  std::vector<size_t> vacant;
  for (std::vector<int64_t>& batch : micro_batches) {
    samples.insert(samples.end(), batch.begin(), batch.end());
    vacant.push_back(batch.size());
    batch.clear();
  }
  std::vector<size_t> indices(samples.size());
  std::iota(indices.begin(), indices.end(), 0);
  std::stable_sort(indices.begin(), indices.end(),
                   [&](size_t a, size_t b) { return lengths[samples[a]] > lengths[samples[b]]; });
  std::vector<int64_t> tokens(micro_batches.size(), 0);
  std::vector<size_t> owner(samples.size());
  for (const size_t index : indices) {
    const auto least = static_cast<size_t>(std::min_element(tokens.begin(), tokens.end()) - tokens.begin());
    owner[index] = least;
    tokens[least] += lengths[samples[index]];
    if (--vacant[least] == 0) tokens[least] = std::numeric_limits<int64_t>::max();  // full
  }
  for (size_t index = 0; index < samples.size(); ++index) micro_batches[owner[index]].push_back(samples[index]);
}

/// Divides samples into micro-batches of at most `most` tokens, by first-fit decreasing. Then tries to give as many
/// micro-batches nearly equal numbers of tokens: the longest sample goes first, each to the one with the fewest. Keeps
/// the order of the samples within a micro-batch.
class TokenBudget {
 public:
  TokenBudget(std::span<const int64_t> samples, std::span<const int32_t> lengths, int64_t most)
      : samples_(samples), most_(most), indices_(samples.size()), owner_(samples.size()) {
    for (const int64_t sample : samples) tokens_.push_back(std::max(1, lengths[sample]));
    std::iota(indices_.begin(), indices_.end(), 0);
    std::stable_sort(indices_.begin(), indices_.end(), [&](size_t a, size_t b) { return tokens_[a] > tokens_[b]; });
  }

  std::vector<std::vector<int64_t>> divide() {
    const size_t count = first_fit();
    const std::vector<size_t> first_fit_owner = owner_;
    if (!balance(count)) owner_ = first_fit_owner;
    std::vector<std::vector<int64_t>> micro_batches(count);
    for (size_t index = 0; index < samples_.size(); ++index) micro_batches[owner_[index]].push_back(samples_[index]);
    return micro_batches;
  }

 private:
  /// Returns the number of micro-batches.
  size_t first_fit() {
    std::vector<int64_t> filled;
    for (const size_t index : indices_) {
      const auto fits = [&](int64_t tokens) { return tokens + tokens_[index] <= most_; };
      const auto place = std::find_if(filled.begin(), filled.end(), fits);
      owner_[index] = static_cast<size_t>(place - filled.begin());
      if (place == filled.end()) filled.push_back(0);
      filled[owner_[index]] += tokens_[index];
    }
    return filled.size();
  }

  /// Returns false where a micro-batch would have too many tokens.
  bool balance(size_t count) {
    std::vector<int64_t> filled(count, 0);
    for (const size_t index : indices_) {
      const auto least = std::min_element(filled.begin(), filled.end());
      if (*least > 0 && *least + tokens_[index] > most_) return false;
      *least += tokens_[index];
      owner_[index] = static_cast<size_t>(least - filled.begin());
    }
    return true;
  }

  std::span<const int64_t> samples_;
  int64_t most_;
  std::vector<int64_t> tokens_;  // of each sample
  std::vector<size_t> indices_;  // longest first
  std::vector<size_t> owner_;    // micro-batch of each sample
};

/// Replaces packs by their samples.
void unpack(std::vector<int64_t>& batch, std::span<const int64_t> pack_begins) {
  const std::vector<int64_t> packs = std::move(batch);
  batch.clear();
  for (const int64_t pack : packs) {
    for (int64_t sample = pack_begins[pack]; sample < pack_begins[pack + 1]; ++sample) batch.push_back(sample);
  }
}

}  // namespace

std::vector<int64_t> seeded_permutation(int64_t n, uint64_t seed) {
  require(n >= 0 && n < kPermutationLimit, ErrorKind::kData, "cannot shuffle {} samples: at most {} are supported", n,
          kPermutationLimit - 1);
  std::mt19937 generator(static_cast<uint32_t>(seed));
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = 0; i + 1 < n; ++i) std::swap(order[i], order[i + generator() % (n - i)]);
  return order;
}

std::vector<int32_t> sums_of_packs(std::span<const int32_t> values, std::span<const int64_t> pack_begins) {
  if (pack_begins.empty()) return {values.begin(), values.end()};
  std::vector<int32_t> sums;
  for (size_t pack = 1; pack < pack_begins.size(); ++pack) {
    sums.push_back(std::accumulate(values.begin() + pack_begins[pack - 1], values.begin() + pack_begins[pack], 0));
  }
  return sums;
}

int64_t steps_per_epoch(int64_t samples, const StepListOptions& options) {
  require(samples > 0, ErrorKind::kData, "there are no samples to train on");
  require(options.micro_batch_size > 0 && options.micro_batches_per_step > 0, ErrorKind::kUsage,
          "expected positive batch sizes, found {} samples per micro-batch and {} micro-batches per step",
          options.micro_batch_size, options.micro_batches_per_step);
  if (options.drop_last) {
    const int64_t steps = samples / options.micro_batch_size / options.micro_batches_per_step;
    require(steps > 0, ErrorKind::kUsage,
            "trainer_config.dataloader_drop_last drops all {} samples: "
            "a step takes {} x {}; use smaller batches or set it to false",
            samples, options.micro_batch_size, options.micro_batches_per_step);
    return steps;
  }
  const int64_t micro_batches = (samples - 1) / options.micro_batch_size + 1;
  return (micro_batches - 1) / options.micro_batches_per_step + 1;
}

StepList::StepList(std::span<const int32_t> lengths, std::span<const int32_t> target_counts, StepListOptions options,
                   std::vector<float> weights, std::span<const int64_t> pack_begins)
    : pack_begins_(pack_begins),
      lengths_(sums_of_packs(lengths, pack_begins)),
      target_counts_(sums_of_packs(target_counts, pack_begins)),
      options_(options),
      weights_(std::move(weights)),
      steps_per_epoch_(data::steps_per_epoch(static_cast<int64_t>(lengths_.size()), options)) {
  require(weights_.empty() || pack_begins.empty(), ErrorKind::kInternal, "packs with weights");
  require(lengths.size() == target_counts.size(), ErrorKind::kInternal, "{} lengths but {} target counts",
          lengths.size(), target_counts.size());
}

double StepList::target_weight(int64_t sample) const {
  const auto count = static_cast<double>(target_counts_[sample]);
  return weights_.empty() ? count : count * static_cast<double>(weights_[static_cast<size_t>(sample)]);
}

void StepList::prepare(int64_t epoch) {
  if (prepared_epoch_ == epoch) return;
  const auto n = static_cast<int64_t>(lengths_.size());
  const uint64_t seed = options_.seed + static_cast<uint64_t>(epoch);
  if (options_.sampling == Sampling::kSequential) {
    order_.resize(static_cast<size_t>(n));
    std::iota(order_.begin(), order_.end(), 0);
  } else {
    order_ = seeded_permutation(n, seed);
  }
  if (options_.sampling == Sampling::kGroupByLength) {
    // The batches here are whole steps, so that the order stays when a step is cut into other micro-batches, as after a
    // lack of memory.
    const int64_t step_samples = options_.micro_batch_size * options_.micro_batches_per_step;
    sort_mega_batches(order_, lengths_, step_samples);
    put_longest_first(order_, lengths_);
    shuffle_batches(order_, step_samples, seed);
  }
  prepared_epoch_ = epoch;
}

Step StepList::step(int64_t epoch, int64_t step) {
  require(epoch >= 0 && step >= 0 && step < steps_per_epoch(), ErrorKind::kInternal,
          "step {} of epoch {} asked for; an epoch has {} steps", step, epoch, steps_per_epoch());
  prepare(epoch);
  const auto n = static_cast<int64_t>(order_.size());
  const int64_t size = options_.micro_batch_size;
  const int64_t begin = step * options_.micro_batches_per_step * size;
  const int64_t end = std::min(n, begin + options_.micro_batches_per_step * size);
  Step out;
  for (int64_t i = begin; i < end; ++i) out.target_weight += target_weight(order_[static_cast<size_t>(i)]);
  if (options_.max_tokens > 0) {
    const std::span<const int64_t> samples(order_.begin() + begin, order_.begin() + end);
    out.micro_batches = TokenBudget(samples, lengths_, options_.max_tokens).divide();
  } else {
    for (int64_t first = begin; first < end; first += size) {
      out.micro_batches.emplace_back(order_.begin() + first, order_.begin() + std::min(end, first + size));
    }
    // Groups by length need no balance: neighbouring micro-batches have similar lengths, and ranks take them in turn.
    if (options_.sampling != Sampling::kGroupByLength) balance_tokens(out.micro_batches, lengths_);
  }
  for (std::vector<int64_t>& batch : out.micro_batches) {
    if (!pack_begins_.empty()) unpack(batch, pack_begins_);
    out.samples += std::ssize(batch);
  }
  return out;
}

std::vector<int64_t> dealt_to_rank(int64_t n_micro_batches, int rank, int world_size) {
  std::vector<int64_t> mine;
  for (int64_t i = rank; i < n_micro_batches; i += world_size) mine.push_back(i);
  return mine;
}

Shard shard_of_rank(int64_t n, int rank, int world_size) {
  require(world_size > 0 && rank >= 0 && rank < world_size && n >= 0, ErrorKind::kInternal,
          "no shard of {} things for rank {} of {}", n, rank, world_size);
  const int64_t base = n / world_size;
  const int64_t larger = n % world_size;  // the first ranks take one more
  const int64_t begin = rank * base + std::min<int64_t>(rank, larger);
  return {begin, begin + base + (rank < larger ? 1 : 0)};
}

}  // namespace neoloom::data
