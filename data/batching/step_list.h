// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace neoloom::data {

enum class Sampling { kRandom, kSequential, kGroupByLength };

struct StepListOptions {
  uint64_t seed = 42;                  // data_seed, or seed
  int64_t micro_batch_size = 8;        // samples; never derived from the number of ranks
  int64_t micro_batches_per_step = 1;  // M of a full step
  Sampling sampling = Sampling::kRandom;
  bool drop_last = false;  // drops the ragged rest of the epoch
};

/// One optimizer step: an ordered list of micro-batches and the count its loss is divided by. Which samples a step has
/// follows from the order of the epoch, and so do those of a micro-batch where they are grouped by length; else its
/// micro-batches have about as many tokens, for ranks that wait for each other.
struct Step {
  std::vector<std::vector<int64_t>> micro_batches;  // sample ids; the last ones of an epoch may be smaller
  int64_t target_count = 0;                         // samples, or supervised tokens, of the whole step
  int64_t samples = 0;
};

/// Throws: Error(kData) without samples, Error(kUsage) when an epoch has no step.
int64_t steps_per_epoch(int64_t samples, const StepListOptions& options);

/// The list of micro-batches of every step as a pure function of (options, lengths, epoch): it does not know ranks.
class StepList {
 public:
  /// `lengths`, `target_counts`: [samples], must outlive this object.
  StepList(std::span<const int32_t> lengths, std::span<const int32_t> target_counts, StepListOptions options);

  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  /// `step` in [0, steps_per_epoch()). Keeps the order of the last epoch asked for.
  Step step(int64_t epoch, int64_t step);

 private:
  void prepare(int64_t epoch);
  std::span<const int32_t> lengths_;
  std::span<const int32_t> target_counts_;
  StepListOptions options_;
  int64_t steps_per_epoch_ = 0;
  int64_t prepared_epoch_ = -1;
  std::vector<int64_t> order_;
};

/// torch.randperm(n, generator=torch.Generator().manual_seed(seed)): the permutation Hugging Face's sampler draws
/// with seed = (data_seed or seed) + epoch.
std::vector<int64_t> seeded_permutation(int64_t n, uint64_t seed);

/// Indices of a step's micro-batches that `rank` of `world_size` computes, ascending: dealt in turn, because neighbours
/// are of similar length and ranks should have similar work. None gets more than ceil(n / world_size).
std::vector<int64_t> dealt_to_rank(int64_t n_micro_batches, int rank, int world_size);

/// A contiguous part of n things for `rank` of `world_size`: sizes differ by at most one, ranks in ascending order.
/// [begin, end).
struct Shard {
  int64_t begin = 0;
  int64_t end = 0;
};
Shard shard_of_rank(int64_t n, int rank, int world_size);

}  // namespace neoloom::data
