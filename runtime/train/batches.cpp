// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/batches.h"

#include <optional>
#include <utility>
#include <vector>

#include "model/batch/pinned.h"

namespace neoloom::train {
namespace {

template <typename Value>
at::Tensor tensor_of(const std::vector<Value>& values, at::IntArrayRef shape) {
  return model::to_pinned(values, shape, at::kCPU);
}

// Walks (step, micro-batch of this rank) pairs.
class ShareCursor {
 public:
  explicit ShareCursor(const ShareRequest& request)
      : request_(request),
        steps_(request.store->lengths(), request.store->target_counts(), request.step_options),
        step_(request.first_step) {}

  std::optional<data::PaddedBatch> next() {
    while (step_ < request_.total_steps) {
      if (!loaded_) load_step();
      if (position_ < mine_.size()) {
        const auto& samples = current_.micro_batches[static_cast<size_t>(mine_[position_++])];
        return data::collate(*request_.store, samples, request_.task, request_.problem_type, request_.pad_id);
      }
      ++step_;
      loaded_ = false;
    }
    return std::nullopt;
  }

 private:
  void load_step() {
    const int64_t per_epoch = steps_.steps_per_epoch();
    current_ = steps_.step(step_ / per_epoch, step_ % per_epoch);
    mine_ =
        data::dealt_to_rank(static_cast<int64_t>(current_.micro_batches.size()), request_.rank, request_.world_size);
    position_ = 0;
    loaded_ = true;
  }

  ShareRequest request_;
  data::StepList steps_;
  data::Step current_;
  std::vector<int64_t> mine_;  // indices of this rank's micro-batches of the step
  int64_t step_;
  size_t position_ = 0;
  bool loaded_ = false;
};

}  // namespace

model::Batch to_model_batch(const data::PaddedBatch& batch, model::Head head, bool labelled) {
  const int64_t rows = batch.rows;
  model::Batch result;
  result.ids = tensor_of(batch.ids, {rows, batch.length});
  result.sample_ids = batch.sample_ids;
  result.lengths = batch.lengths;
  if (!labelled) return result;
  switch (head) {
    case model::Head::kCausalLm:
      result.labels = tensor_of(batch.labels, {rows, batch.length});
      break;
    case model::Head::kSingleLabel:
      result.labels = tensor_of(batch.labels, {rows});
      break;
    case model::Head::kMultiLabel:
      result.labels = tensor_of(batch.multi_labels, {rows, static_cast<int64_t>(batch.multi_labels.size()) / rows});
      break;
  }
  return result;
}

std::unique_ptr<data::Prefetcher> make_share_loader(const ShareRequest& request) {
  auto cursor = std::make_shared<ShareCursor>(request);
  return std::make_unique<data::Prefetcher>([cursor] { return cursor->next(); }, request.prefetch_batches);
}

}  // namespace neoloom::train
