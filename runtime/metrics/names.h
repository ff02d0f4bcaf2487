// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/core/task.h"

namespace neoloom::metrics {

/// The metrics of an evaluation of this task by which models can be compared, without "eval_". Some exist for some
/// numbers of labels only: those of num_labels labels, or all if it is not known (0).
std::vector<std::string> metric_names(core::Task task, int64_t num_labels = 0);

/// Returns neoloom's name of a metric: without "eval_", and for names that others use (f1, f1_macro,
/// matthews_corrcoef). Returns other texts as they are.
std::string metric_name(std::string_view text);

/// Whether a smaller value of the metric is better: losses, perplexity, errors.
bool smaller_is_better(std::string_view metric);

}  // namespace neoloom::metrics
