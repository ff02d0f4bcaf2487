// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <optional>
#include <string_view>

namespace neoloom::metrics {

// Lines of a metrics.jsonl as EventLog writes them, read without a parser: a long run has a million of them. What is
// written otherwise is valid, too, and left to the parser.

/// The kind of a line's event; "": only a parser can tell.
std::string_view kind_of(std::string_view line);

/// Numbers of a train event. What it does not have, or has as null, is NaN.
struct TrainNumbers {
  double step = std::numeric_limits<double>::quiet_NaN();
  double epoch = step;
  double loss = step;
  double grad_norm = step;
  double learning_rate = step;
  double time_seconds = step;  // Unix time
};

/// Reads a train event and passes over its devices; nullopt: another event, or only a parser can tell.
std::optional<TrainNumbers> scan_train_line(std::string_view line);

}  // namespace neoloom::metrics
