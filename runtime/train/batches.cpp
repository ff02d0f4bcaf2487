// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/batches.h"

#include <ATen/ops/from_blob.h>
#include <c10/core/Device.h>

#include <optional>
#include <utility>
#include <vector>

namespace neoloom::train {
namespace {

template <typename Value>
at::Tensor copy_to(const std::vector<Value>& values, at::IntArrayRef shape, at::ScalarType type,
                   const c10::Device& device) {
  const at::Tensor view = at::from_blob(const_cast<Value*>(values.data()), shape, at::TensorOptions().dtype(type));
  return device.is_cpu() ? view.clone() : view.to(device);
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

model::Batch to_model_batch(const data::PaddedBatch& batch, model::Head head, bool labelled,
                            const std::string& device_name) {
  const c10::Device device(device_name);
  const int64_t rows = batch.rows;
  model::Batch result;
  result.ids = copy_to(batch.ids, {rows, batch.length}, at::kLong, device);
  result.lengths = copy_to(batch.lengths, {rows}, at::kLong, device);
  result.sample_ids = batch.sample_ids;
  result.host_lengths = batch.lengths;
  if (!labelled) return result;
  switch (head) {
    case model::Head::kCausalLm:
      result.labels = copy_to(batch.labels, {rows, batch.length}, at::kLong, device);
      break;
    case model::Head::kSingleLabel:
      result.labels = copy_to(batch.labels, {rows}, at::kLong, device);
      break;
    case model::Head::kMultiLabel:
      result.labels = copy_to(batch.multi_labels, {rows, static_cast<int64_t>(batch.multi_labels.size()) / rows},
                              at::kFloat, device);
      break;
  }
  return result;
}

std::unique_ptr<data::Prefetcher> make_share_loader(const ShareRequest& request) {
  auto cursor = std::make_shared<ShareCursor>(request);
  return std::make_unique<data::Prefetcher>([cursor] { return cursor->next(); }, request.prefetch_batches);
}

}  // namespace neoloom::train
