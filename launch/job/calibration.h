// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/job/task_choice.h"
#include "runtime/metrics/calibration.h"

namespace neoloom::launch {

/// The calibration.json beside a classifier's weights (trainer_config.calibrate).
struct CalibrationFile {
  metrics::Calibration values;
  std::string path;
  std::string text;  // of the file, for a copy of the folder
  /// Says that it is used, for the log.
  std::string note() const;
};

/// Reads it from a model or adapter folder; nullopt: there is none, or the task has no labels.
/// Throws: Error(kWeights) when it does not fit `labels` or cannot be read.
std::optional<CalibrationFile> read_calibration(const std::string& folder, const TaskChoice& task,
                                                const std::vector<std::string>& labels);

}  // namespace neoloom::launch
