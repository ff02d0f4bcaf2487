// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "data/batching/prefetcher.h"
#include "data/batching/ragged_batch.h"
#include "data/batching/step_list.h"
#include "model/model.h"

namespace neoloom::train {

/// Converts the data room's batch to the model's without a copy. `has_targets`: false for unlabelled data.
model::Batch to_model_batch(data::RaggedBatch batch, bool has_targets);

/// What every rank knows about a step before it computes it.
struct StepHeader {
  int64_t step = 0;           // from 0, over all epochs
  double target_weight = 0;   // of all samples, or supervised tokens, of the whole step
  int64_t micro_batches = 0;  // of all ranks
};

/// A micro-batch of this rank, ready for the model.
struct LoadedMicroBatch {
  StepHeader header;
  int64_t index = -1;               // in the step's list; -1: this rank has none, and the rest is empty
  bool last = true;                 // of this rank in this step
  std::vector<int64_t> sample_ids;  // [B]
  std::vector<int64_t> lengths;     // [B] tokens
  int64_t max_tokens = 0;           // StepListOptions::max_tokens
  std::shared_ptr<const model::MicroBatch> packed;

  int64_t tokens() const;
  int64_t padded_tokens() const;  // B x the longest length
  int64_t budget_tokens() const;  // max_tokens, or tokens() of a longer sample; 0: no limit
};

struct LoaderSetup {
  std::shared_ptr<const data::TokenStore> store;
  data::StepListOptions step_options;
  data::Task task = data::Task::kSingleLabel;
  std::vector<float> class_weights = {};  // [C] factors of the losses; empty: 1
  int64_t pad_id = 0;
  int rank = 0;
  int world_size = 1;
  int64_t first_step = 0;  // from 0, over all epochs
  int64_t total_steps = 0;
  int prefetch_batches = 4;
  /// Model::pack; runs on the loader's thread.
  std::function<std::shared_ptr<const model::MicroBatch>(const model::Batch&)> pack;
};

/// Prefetches this rank's micro-batches, from `first_step` to the end of the run, on a thread of its own. The only
/// owner of an epoch's order. Each step yields at least one item, so that every rank gets its header.
class MicroBatchLoader {
 public:
  explicit MicroBatchLoader(const LoaderSetup& setup);
  /// Blocks until the next one is ready. Throws: what reading or packing threw; Error(kInternal) after the last one.
  LoadedMicroBatch next();

 private:
  data::Prefetcher<LoadedMicroBatch> prefetcher_;
};

}  // namespace neoloom::train
