// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "data/options.h"
#include "runtime/checkpoint/state.h"
#include "runtime/train/options.h"

namespace neoloom::train {

/// How evaluations are compared. Only those of equal judges are comparable.
struct Judge {
  std::string metric;  // with "eval_"
  bool greater_is_better = false;
  std::string data;  // content hash of the validation data
  bool operator==(const Judge&) const = default;
};

/// The judge's metric among the values of an evaluation; NaN: it has none.
double judged_value(const Judge& judge, const nlohmann::ordered_json& values);

/// Names and content hashes of the validation sets.
using ValidationHashes = std::vector<std::pair<std::string, std::string>>;

/// metric_for_best_model and greater_is_better; without the latter, losses and perplexity are better when smaller. The
/// metric of a named set begins with its name: dev_loss, eval_dev_loss.
Judge judge_of(const Options& options, const ValidationHashes& validation);

/// Returns a warning when greater_is_better would keep the worst model; else "".
/// num_labels: 0 if not known yet. Throws: Error(kUsage) when evaluations are compared by a metric that this task does
/// not have, with the nearest name and all names.
std::string check_metric(const Options& options, data::Task task, int64_t num_labels = 0,
                         const std::vector<data::ValidationFiles>& validation = {});

/// The best evaluation of a run, and optionally the parameters that it evaluated. The parameters stay in memory and are
/// part of checkpoints, so that they are kept whatever save_steps is and when the disk is full.
class BestModel {
 public:
  BestModel() = default;
  /// `keeps_params`: on the rank that writes, with load_best_model_at_end.
  BestModel(Judge judge, bool keeps_params) : judge_(std::move(judge)), keeps_params_(keeps_params) {}

  const Judge& judge() const { return judge_; }
  int64_t step() const { return step_; }  // -1: none yet
  double metric() const { return metric_; }
  const std::vector<float>& params() const { return params_; }  // of step(); empty unless kept

  /// Compares an evaluation with the best one and keeps the better. Ties keep the earlier one, as in Hugging Face; a
  /// value that is not finite never wins. Reads `params` only when they are the best. Returns whether they are.
  /// Shapes: params [n] fp32 on any device.
  bool consider(int64_t step, const nlohmann::ordered_json& values, const at::Tensor& params);

  /// Restores itself from `state`. Forgets a best model that another judge chose, or whose parameters are neither in
  /// `state` nor in a checkpoint of that step in `folder`. Returns why it forgot one, for the log; else "".
  std::string restore(const checkpoint::State& state, const std::string& folder);

  /// Writes itself to `state`, whose `params` and `step` must be set.
  void store(checkpoint::State& state) const;
  /// The judge for the checkpoint's history. Deterministic, since equal states must be equal bytes.
  nlohmann::json judge_json() const;

 private:
  std::string forget(const std::string& why);
  bool find_params(const checkpoint::State& state, const std::string& folder);

  Judge judge_;
  bool keeps_params_ = false;
  double metric_ = 0.0;
  int64_t step_ = -1;
  std::vector<float> params_;
};

}  // namespace neoloom::train
