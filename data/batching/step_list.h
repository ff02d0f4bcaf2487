// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace neoloom::data {

enum class Sampling { kRandom, kSequential, kGroupByLength };

struct StepListOptions {
  uint64_t seed = 42;                  // data_seed, or seed
  int64_t micro_batch_size = 8;        // samples, or packs; never derived from the number of ranks
  int64_t micro_batches_per_step = 1;  // M of a full step
  Sampling sampling = Sampling::kRandom;
  bool drop_last = false;  // drops the samples after the last full step of an epoch
  int64_t max_tokens = 0;  // of a micro-batch, which then has any number of samples; 0: no limit
};

/// One optimizer step: an ordered list of micro-batches, and the weight that divides its loss. The order of the epoch
/// determines the samples of a step. With kGroupByLength it also determines those of each micro-batch; else the
/// micro-batches of a step are balanced by tokens, so that ranks wait less for each other. With max_tokens, a step has
/// as few micro-batches as first-fit decreasing needs, balanced likewise; a longer sample is a micro-batch of its own.
struct Step {
  std::vector<std::vector<int64_t>> micro_batches;  // sample ids; the last ones of an epoch may be smaller
  double target_weight = 0.0;                       // of all targets: of samples, or supervised tokens
  int64_t samples = 0;
};

/// `samples`: or packs. Throws: Error(kData) without samples, Error(kUsage) when an epoch has no step.
int64_t steps_per_epoch(int64_t samples, const StepListOptions& options);

/// The list of micro-batches of every step. A pure function of (options, lengths, epoch), independent of ranks.
class StepList {
 public:
  /// `lengths`, `target_counts`: [samples]. `weights`: the weight of each sample's target; empty: 1. `pack_begins`:
  /// TokenStore::pack_begins, must outlive this object. The samples of a pack come together and count as one. Packs
  /// have no weights.
  StepList(std::span<const int32_t> lengths, std::span<const int32_t> target_counts, StepListOptions options,
           std::vector<float> weights = {}, std::span<const int64_t> pack_begins = {});

  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  /// Returns a step; `step` in [0, steps_per_epoch()). Caches the order of the last epoch.
  Step step(int64_t epoch, int64_t step);

 private:
  void prepare(int64_t epoch);
  double target_weight(int64_t sample) const;
  std::span<const int64_t> pack_begins_;
  std::vector<int32_t> lengths_;  // of packs, as what follows
  std::vector<int32_t> target_counts_;
  StepListOptions options_;
  std::vector<float> weights_;
  int64_t steps_per_epoch_ = 0;
  int64_t prepared_epoch_ = -1;
  std::vector<int64_t> order_;
};

/// Returns the sums over the samples of each pack, or `values` without packs. `values`: [samples]; `pack_begins`:
/// TokenStore::pack_begins.
std::vector<int32_t> sums_of_packs(std::span<const int32_t> values, std::span<const int64_t> pack_begins);

/// torch.randperm(n, generator=torch.Generator().manual_seed(seed)): the permutation Hugging Face's sampler draws
/// with seed = (data_seed or seed) + epoch.
std::vector<int64_t> seeded_permutation(int64_t n, uint64_t seed);

/// Returns the indices of a step's micro-batches that `rank` of `world_size` computes, ascending. They are assigned
/// round-robin, since neighbours have similar lengths and ranks should have similar work. No rank gets more than ceil(n
/// / world_size).
std::vector<int64_t> dealt_to_rank(int64_t n_micro_batches, int rank, int world_size);

/// The contiguous shard [begin, end) of n items for `rank` of `world_size`. Shards are in rank order; their sizes
/// differ by at most one.
struct Shard {
  int64_t begin = 0;
  int64_t end = 0;
};
Shard shard_of_rank(int64_t n, int rank, int world_size);

}  // namespace neoloom::data
