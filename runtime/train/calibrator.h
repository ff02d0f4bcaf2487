// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "model/model.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/metrics/calibration.h"
#include "runtime/train/best_model.h"
#include "runtime/train/evaluator.h"

namespace neoloom::train {

/// Bytes that a calibration takes on the host of a rank.
int64_t calibration_bytes(int64_t samples, int64_t num_labels, int64_t batch_size, int64_t ranks);

/// What a calibration is, and what it changed on the samples that it was fitted on. On rank 0; elsewhere empty.
struct Calibrated {
  nlohmann::ordered_json values;  // of calibration.json; null: a logit was not finite, so there is none
  std::string text;               // for the log
  bool warns = false;             // `text` is a warning
};

/// Fits temperature and, for several labels a row, thresholds (trainer_config.calibrate) on a classifier's labelled
/// samples. Rank 0 gathers the logits in sample order, so the result has the same bits on any number of ranks.
/// Collective: every rank.
Calibrated calibrate(comm::MpiSession& session, model::Model& model, const at::Tensor& params,
                     const EvalRequest& request);

/// Returns on every rank the parameters that the result holds: `last`, those of `step`, or the best ones if
/// `keeps_best` and rank 0 has those of another step. Collective: every rank.
at::Tensor result_params(comm::MpiSession& session, const BestModel& best, bool keeps_best, int64_t step,
                         const at::Tensor& last);

}  // namespace neoloom::train
