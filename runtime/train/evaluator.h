// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/token_store.h"
#include "model/model.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/core/progress.h"
#include "runtime/metrics/calibration.h"
#include "runtime/train/eval_result.h"

namespace neoloom::train {

struct EvalRequest {
  std::shared_ptr<const data::TokenStore> store;
  int64_t batch_size = 8;  // samples, or packs; affects bits, so it never depends on the number of ranks
  int64_t pad_id = 0;
  std::optional<metrics::Calibration> calibration = {};  // of a classifier's scores
  core::Progress progress = {};                          // of this rank's shard, in rows of the store
};

/// The samples of a batch, consecutive in the store, and how many batches there are. Both count packs; those of a store
/// of windows are its rows.
std::vector<int64_t> samples_of_batch(const EvalRequest& request, int64_t batch);
int64_t batches_of(const EvalRequest& request);

/// Data that a run evaluates on.
struct ValidationSet {
  std::string name;  // empty: the only one
  std::shared_ptr<const data::TokenStore> store;
};

std::vector<std::pair<std::string, std::string>> hashes_of(const std::vector<ValidationSet>& sets);

/// Evaluates consecutive batches of batch_size samples (or packs, or rows in windows); each rank takes a contiguous
/// shard of them. Losses are summed in fixed point, counts as integers, and scores are ranked in sample order, so the
/// result is the same for any number of ranks. Collective: every rank.
EvalResult evaluate(comm::MpiSession& session, model::Model& model, const at::Tensor& params,
                    const EvalRequest& request);

}  // namespace neoloom::train
