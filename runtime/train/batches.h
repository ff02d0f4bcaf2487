// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "data/batching/loader.h"
#include "data/batching/step_list.h"
#include "model/model.h"

namespace neoloom::train {

/// A padded batch as tensors in host memory. Labels are left out for unlabelled data.
model::Batch to_model_batch(const data::PaddedBatch& batch, model::Head head, bool labelled);

/// What the loader needs to make a rank's micro-batches.
struct ShareRequest {
  std::shared_ptr<const data::TokenStore> store;
  data::StepListOptions step_options;
  data::Task task = data::Task::kSequenceClassification;
  data::ProblemType problem_type = data::ProblemType::kSingleLabel;
  int64_t pad_id = 0;
  int rank = 0;
  int world_size = 1;
  int64_t first_step = 0;  // global step index, epoch = step / steps_per_epoch
  int64_t total_steps = 0;
  int prefetch_batches = 4;
};

/// The micro-batches of this rank from `first_step` to the end of the run, made ahead on a thread of their own.
std::unique_ptr<data::Prefetcher> make_share_loader(const ShareRequest& request);

}  // namespace neoloom::train
