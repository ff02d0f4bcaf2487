// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/metrics/classification.h"

namespace neoloom::metrics {

/// The confusion matrix as an aligned text table with label names (at most `max_labels` shown).
std::string confusion_table(const ConfusionCounts& counts, const std::vector<std::string>& labels,
                            int64_t max_labels = 20);

/// Precision, recall, F1 score and support of each label as an aligned text table (at most `max_labels` shown).
std::string class_table(std::span<const LabelCounts> counts, const std::vector<std::string>& labels,
                        size_t max_labels = 20);

}  // namespace neoloom::metrics
