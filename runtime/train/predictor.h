// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "model/model.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/train/evaluator.h"

namespace neoloom::train {

/// Returns the logits [rows, num_labels] of a batch of request.store: the bits that evaluate() computes. The targets of
/// the rows are not looked at. A row in windows has one row of logits, their mean.
at::Tensor predict_batch(model::Model& model, const at::Tensor& params, const EvalRequest& request, int64_t batch);

/// Work on numbered batches whose results leave in order while the work goes on.
struct Rounds {
  int64_t batches = 0;
  std::function<void(int64_t batch)> compute = {};           // on one rank; ascending there
  std::function<void(int64_t batches_done)> hand_over = {};  // on every rank, after each round
};

/// Shares the batches out in rounds. In a round each rank computes consecutive ones, and its shard follows that of the
/// rank before it, so the results of a round join in rank order. The first rounds are short; they grow until one takes
/// half a second or 64 batches of each rank. What a batch is does not depend on the rounds.
/// Collective: every rank. Throws: CollectiveError from compute.
void run_rounds(comm::MpiSession& session, const Rounds& rounds);

}  // namespace neoloom::train
