// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "model/parameter_layout.h"
#include "runtime/optim/metric_schedule.h"
#include "runtime/optim/optimizer.h"
#include "runtime/train/loss_spikes.h"
#include "runtime/train/resume.h"
#include "runtime/train/update.h"

namespace neoloom::train {

/// The dynamic loss scale of float16 runs, as torch's GradScaler: halved by a skipped step, doubled after kGrowthSteps
/// good ones in a row. An initial value of 1 means no loss scale.
class LossScale {
 public:
  static constexpr int64_t kGrowthSteps = 2000;
  /// Initial and largest value. A logit's gradient is at most the scale, so half of GradScaler's initial value keeps it
  /// within float16.
  static constexpr double kLargest = 32768.0;

  explicit LossScale(double initial) : moves_(initial > 1.0), value_(initial) {}

  bool moves() const { return moves_; }
  double value() const { return value_; }
  int64_t good_steps() const { return good_steps_; }
  void note(bool skipped);
  void restore(double value, int64_t good_steps);

 private:
  bool moves_ = false;
  double value_ = 1.0;
  int64_t good_steps_ = 0;  // in a row, since the scale changed
};

/// A run's deterministic events so far, and its loss since the last log line.
class History {
 public:
  /// `event` holds no times: equal states are equal bytes.
  void remember(const nlohmann::json& event);
  void add_loss(double loss);
  double mean_loss() const;  // of the steps since reset(); NaN if none had a loss
  void reset();

  /// Returns the members of the `eval` events of the last evaluation up to this step; null: none.
  nlohmann::json evaluation_before(int64_t step) const;

  /// One JSON object, with the members of `others` beside its own.
  std::string text(nlohmann::json others) const;
  /// Reads its own members of `text`. Throws: nlohmann::json::exception.
  void restore(const nlohmann::json& text);

 private:
  std::string events_;  // as JSON, with commas between them: most of what a long run keeps
  double loss_ = 0.0;
  int64_t steps_ = 0;  // that had a loss
};

/// Everything beside the configuration that the next steps depend on, and that a checkpoint stores.
struct TrainingState {
  /// `factored_elements`: see optim::StateSizes.
  TrainingState(int64_t n_elements, const at::Device& device, double initial_loss_scale,
                const optim::OptimizerOptions& optimizer = {}, int64_t factored_elements = 0);

  /// Updates counters, loss scale and history by a step's result. `buffers` hold its update already.
  void note(const StepResult& result);

  /// Returns the checkpoint without the members that BestModel::store sets. `evaluations`: members of the history that
  /// evaluations decided.
  checkpoint::State to_checkpoint(const model::ParameterLayout& layout, int64_t steps_per_epoch,
                                  const nlohmann::json& evaluations) const;
  /// Throws: comm::CollectiveError(kCheckpoint) when the checkpoint's tensors differ from `layout`, or its moments are
  /// of another optimizer; Error(kCheckpoint) when its history is damaged.
  void restore(const Resumed& resumed, const model::ParameterLayout& layout);

  /// Returns a hash of the parameters and the optimizer's moments.
  uint64_t hash() const;

  optim::FlatBuffers buffers;    // grads holds one micro-batch's, then the mean
  at::Tensor initial_params;     // [n] before the first step; undefined unless the model computes with them
  std::string optimizer;         // optim::state_name
  int64_t step = 0;              // steps done; with a device step: enqueued
  int64_t skipped_steps = 0;     // without an update: not finite, or a loss spike
  int64_t skipped_in_a_row = 0;  // not finite
  LossScale loss_scale;
  LossSpikes spikes;
  std::unique_ptr<optim::MetricSchedule> metric_schedule;  // null: the learning rate follows the updates
  History history;
};

}  // namespace neoloom::train
