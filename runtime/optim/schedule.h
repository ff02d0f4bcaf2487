// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace neoloom::optim {

/// lr_scheduler_kwargs: arguments of a schedule by Hugging Face's names.
using ScheduleArguments = std::map<std::string, std::variant<double, std::string>>;

/// What a schedule depends on beside the update.
struct ScheduleSettings {
  std::string name = "linear";
  ScheduleArguments arguments = {};
  double learning_rate = 0.0;  // peak
  int64_t warmup_steps = 0;
  int64_t total_steps = 0;
};

/// Factor of the learning rate for update t (0 for the first), t in [0, total_steps), by the formulas of
/// transformers.optimization (5.17). With warmup_steps > 0 the first update has factor 0 in most of them. `constant`
/// ignores the warm-up.
using Schedule = std::function<double(int64_t t)>;

/// Throws: Error(kUsage) for an unknown name, an argument that the schedule does not have, a missing one, and a value
/// that does not fit, with what is expected.
Schedule make_schedule(const ScheduleSettings& settings);

/// Whether the learning rate follows evaluations instead of updates (runtime/optim/metric_schedule.h).
bool follows_metric(const std::string& name);

/// Names that make_schedule() knows.
std::vector<std::string> schedule_names();

/// Hugging Face's rule: warmup_steps >= 1 is a count, a value in (0, 1) is a share of total_steps, rounded up.
int64_t resolve_warmup_steps(double warmup_steps, int64_t total_steps);

}  // namespace neoloom::optim
