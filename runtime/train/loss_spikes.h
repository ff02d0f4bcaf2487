// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "runtime/train/options.h"
#include "runtime/train/update.h"

namespace neoloom::train {

/// Finds steps whose loss lies far above the last ones (loss_spike_policy). It reads nothing but losses, which are
/// equal on all ranks, so all ranks skip the same steps.
class LossSpikes {
 public:
  static constexpr int64_t kLeastLosses = 10;  // or the window, if that is smaller: fewer say nothing of their spread

  LossSpikes() = default;
  explicit LossSpikes(const LossSpikePolicy& policy) : policy_(policy) {}

  /// The mean loss above which the next step makes no update; kAnyLoss while too few are known.
  double limit() const;
  /// Takes the result of a step.
  void note(const StepResult& result);
  /// A step that spiked, for the log. Call before note().
  std::string describe(const StepResult& result) const;

  int64_t count() const { return count_; }
  int64_t in_a_row() const { return in_a_row_; }
  bool too_many() const { return in_a_row_ >= policy_.most_skipped; }
  bool given() const { return policy_.given(); }

  /// Its state, for checkpoints.
  nlohmann::json state() const;
  /// Throws: nlohmann::json::exception.
  void restore(const nlohmann::json& state);

 private:
  struct Spread {
    double mean = 0.0;
    double deviation = 0.0;
  };
  Spread spread() const;

  LossSpikePolicy policy_;
  std::deque<double> losses_;  // of the last steps that made an update, oldest first
  int64_t count_ = 0;
  int64_t in_a_row_ = 0;
};

}  // namespace neoloom::train
