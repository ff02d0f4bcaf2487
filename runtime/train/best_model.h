// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/options.h"
#include "runtime/checkpoint/state.h"
#include "runtime/train/options.h"

namespace neoloom::train {

/// The metrics that an evaluation of this task gives and that models can be compared by, without "eval_".
std::vector<std::string> metric_names(data::Task task);

/// What makes two evaluations comparable.
struct Judge {
  std::string metric;  // with "eval_"
  bool greater_is_better = false;
  std::string data;  // content hash of the validation data
  bool operator==(const Judge&) const = default;
};

/// metric_for_best_model and greater_is_better; without the latter, losses and perplexity are better when smaller.
Judge judge_of(const Options& options, const std::string& validation_hash);

/// Throws: Error(kUsage) when load_best_model_at_end asks for a metric that this task does not give, with the names of
/// those that it gives. Returns a warning where the direction keeps the worst model; else "".
std::string check_metric(const Options& options, data::Task task);

/// The best evaluation of a run, and (where asked for) the parameters it was made with: they stay in memory from there
/// on and travel in checkpoints, so that neither the rhythm of saving nor a full disk loses them.
class BestModel {
 public:
  BestModel() = default;
  /// `keeps_params`: on the rank that writes, with load_best_model_at_end.
  BestModel(Judge judge, bool keeps_params) : judge_(std::move(judge)), keeps_params_(keeps_params) {}

  const Judge& judge() const { return judge_; }
  int64_t step() const { return step_; }  // -1: none yet
  double metric() const { return metric_; }
  const std::vector<float>& params() const { return params_; }  // of step(); empty unless kept

  /// Takes an evaluation's values into account: strictly better ones count, ties keep the earlier one (as Hugging Face
  /// does), what is not finite never counts. `params` are read when they are the best.
  /// Returns whether they are. Shapes: params [n] fp32 on any device.
  bool consider(int64_t step, const nlohmann::ordered_json& values, const at::Tensor& params);

  /// Goes on where the checkpoint `state` stopped. What was chosen by another judge, or whose parameters are neither in
  /// the state nor in a checkpoint of that step in `folder`, is forgotten. Returns why, for the log; else "".
  std::string restore(const checkpoint::State& state, const std::string& folder);

  /// Writes itself into a checkpoint; `state.params` and `state.step` are set.
  void store(checkpoint::State& state) const;
  /// For the checkpoint's history, since equal states are equal bytes.
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
