// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/core/task.h"
#include "runtime/train/options.h"

namespace neoloom::launch {

/// Refuses class_weights and label_smoothing_factor for tasks whose loss has neither.
/// Throws: Error(kUsage).
void require_loss_options_fit(const train::Options& options, core::Task task);

/// The labels of a training file, by class index.
struct LabelledData {
  core::Task task = core::Task::kSingleLabel;
  const std::vector<std::string>& names;
  const std::vector<int64_t>& counts;  // samples with each label
  int64_t samples = 0;
};

/// Returns the factor of each class, [C]; empty: class_weights is not given. A label that has no factor, or no sample,
/// has 1. auto: scikit-learn's "balanced", samples / (classes * count), where classes are those that occur.
/// Multi-label: the samples without the label per sample with it, as the documentation of torch's BCEWithLogitsLoss
/// chooses pos_weight. Throws: Error(kUsage) for a label that the data does not have.
std::vector<float> class_weights(const train::ClassWeights& asked, const LabelledData& data);

/// "ham 0.58, spam 3.7", the first twelve, "and 8 more".
std::string class_weight_text(const std::vector<std::string>& names, const std::vector<float>& weights);

}  // namespace neoloom::launch
