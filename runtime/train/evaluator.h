// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "data/token_store.h"
#include "model/model.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/metrics/classification.h"
#include "runtime/metrics/regression.h"

namespace neoloom::train {

struct EvalRequest {
  std::shared_ptr<const data::TokenStore> store;
  int64_t batch_size = 8;  // samples; affects bits, so it never depends on the number of ranks
  int64_t pad_id = 0;
};

struct EvalResult {
  int64_t samples = 0;
  int64_t tokens = 0;
  int64_t targets = 0;  // labelled samples, or supervised tokens
  double loss = 0.0;    // sum / targets
  double seconds = 0.0;
  std::optional<metrics::ConfusionCounts> single_label;
  std::optional<metrics::MultiLabelCounts> multi_label;
  std::optional<metrics::RegressionScores> regression;

  /// Keys with Hugging Face's `eval_` prefix; deterministic values only.
  nlohmann::ordered_json json() const;
};

/// Called for each batch of this rank, in order: first sample index and the logits.
using LogitsSink = std::function<void(int64_t first_sample, const at::Tensor& logits)>;

/// Evaluates consecutive batches of batch_size samples; each rank takes a contiguous shard of them. Losses are summed
/// in fixed point and counts as integers, so the result is the same for any number of ranks.
/// Collective: every rank.
EvalResult evaluate(comm::MpiSession& session, model::Model& model, const at::Tensor& params,
                    const EvalRequest& request, const LogitsSink& sink = {});

}  // namespace neoloom::train
