// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "runtime/optim/schedule.h"

namespace neoloom::optim {

/// A learning rate that follows a metric of the evaluations. All ranks give it the same values.
class MetricSchedule {
 public:
  virtual ~MetricSchedule() = default;

  /// Takes the value of an evaluation. One that is not finite is no improvement.
  virtual void step(double value) = 0;

  double learning_rate() const { return learning_rate_; }
  /// Its state, for checkpoints: the same values give the same text.
  virtual nlohmann::json state() const = 0;
  /// Throws: nlohmann::json::exception.
  virtual void restore(const nlohmann::json& state) = 0;

 protected:
  double learning_rate_ = 0.0;
};

/// Names that make_metric_schedule() knows.
std::vector<std::string> metric_schedule_names();

/// reduce_lr_on_plateau: torch.optim.lr_scheduler.ReduceLROnPlateau. greedy: transformers.optimization.GreedyLR (5.17).
/// The results are equal to the bit. Without the argument `mode`, greater_is_better decides it, where transformers
/// always takes min. settings.arguments are theirs; warm-up and total are not read. Throws: Error(kUsage) as
/// make_schedule.
std::unique_ptr<MetricSchedule> make_metric_schedule(const ScheduleSettings& settings, bool greater_is_better);

}  // namespace neoloom::optim
