// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/micro_batch_loader.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "runtime/core/error.h"

namespace neoloom::train {
namespace {

/// Returns the weight of each sample's target; empty: 1. The labels of a multi-label sample have weights of their own,
/// which do not divide the loss.
std::vector<float> sample_weights(const LoaderSetup& setup) {
  std::vector<float> weights;
  if (setup.class_weights.empty() || setup.task != data::Task::kSingleLabel) return weights;
  for (int64_t sample = 0; sample < setup.store->size(); ++sample) {
    const int64_t label = setup.store->label(sample);
    weights.push_back(label < 0 ? 0.0F : setup.class_weights[static_cast<size_t>(label)]);
  }
  return weights;
}

/// Returns the factors of a micro-batch's losses; see model::Batch.
std::vector<float> loss_weights(const LoaderSetup& setup, const model::Batch& batch) {
  std::vector<float> weights;
  if (setup.class_weights.empty()) return weights;
  for (const int64_t label : batch.targets) {
    weights.push_back(label < 0 ? 0.0F : setup.class_weights[static_cast<size_t>(label)]);
  }
  for (const float flag : batch.multi_labels) {
    const size_t label = weights.size() % setup.class_weights.size();
    weights.push_back(flag > 0.0F ? setup.class_weights[label] : 1.0F);
  }
  return weights;
}

/// Walks the micro-batches of this rank, step after step.
class Cursor {
 public:
  explicit Cursor(LoaderSetup setup)
      : setup_(std::move(setup)),
        steps_(setup_.store->lengths(), setup_.store->target_counts(), setup_.step_options, sample_weights(setup_),
               setup_.store->pack_begins()),
        step_(setup_.first_step - 1) {}

  std::optional<LoadedMicroBatch> next() {
    if (position_ >= indices_.size() && !load_step()) return std::nullopt;
    LoadedMicroBatch loaded;
    loaded.header = header_;
    if (indices_.empty()) return loaded;
    loaded.index = indices_[position_++];
    loaded.last = position_ == indices_.size();
    load(current_.micro_batches[static_cast<size_t>(loaded.index)], loaded);
    return loaded;
  }

 private:
  bool load_step() {
    if (++step_ >= setup_.total_steps) return false;
    const int64_t per_epoch = steps_.steps_per_epoch();
    current_ = steps_.step(step_ / per_epoch, step_ % per_epoch);
    header_ = {step_, current_.target_weight, static_cast<int64_t>(current_.micro_batches.size())};
    indices_ = data::dealt_to_rank(header_.micro_batches, setup_.rank, setup_.world_size);
    position_ = 0;
    return true;
  }

  void load(const std::vector<int64_t>& samples, LoadedMicroBatch& loaded) const {
    model::Batch batch =
        to_model_batch(data::collate(*setup_.store, samples, setup_.task, setup_.pad_id), /*has_targets=*/true);
    batch.loss_weights = loss_weights(setup_, batch);
    loaded.sample_ids = samples;
    loaded.max_tokens = setup_.step_options.max_tokens;
    for (size_t i = 1; i < batch.cu_seqlens.size(); ++i) {
      loaded.lengths.push_back(batch.cu_seqlens[i] - batch.cu_seqlens[i - 1]);
    }
    loaded.packed = setup_.pack(batch);
  }

  LoaderSetup setup_;
  data::StepList steps_;
  data::Step current_;
  StepHeader header_;
  std::vector<int64_t> indices_;  // of this rank's micro-batches of the step
  int64_t step_;
  size_t position_ = 0;
};

}  // namespace

model::Batch to_model_batch(data::RaggedBatch batch, bool has_targets) {
  return {.sample_ids = std::move(batch.sample_ids),
          .cu_seqlens = std::move(batch.cu_seqlens),
          .ids = std::move(batch.ids),
          .has_targets = has_targets,
          .target_rows = std::move(batch.target_rows),
          .targets = std::move(batch.targets),
          .multi_labels = std::move(batch.multi_labels),
          .values = std::move(batch.values),
          .loss_weights = {}};
}

int64_t LoadedMicroBatch::tokens() const { return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}); }

int64_t LoadedMicroBatch::padded_tokens() const {
  if (lengths.empty()) return 0;
  return static_cast<int64_t>(lengths.size()) * *std::max_element(lengths.begin(), lengths.end());
}

int64_t LoadedMicroBatch::budget_tokens() const { return max_tokens > 0 ? std::max(max_tokens, tokens()) : 0; }

MicroBatchLoader::MicroBatchLoader(const LoaderSetup& setup)
    : prefetcher_([cursor = std::make_shared<Cursor>(setup)] { return cursor->next(); }, setup.prefetch_batches) {}

LoadedMicroBatch MicroBatchLoader::next() {
  std::optional<LoadedMicroBatch> loaded = prefetcher_.pop();
  core::require(loaded.has_value(), core::ErrorKind::kInternal, "the loader was asked for a step after the last");
  return std::move(*loaded);
}

}  // namespace neoloom::train
