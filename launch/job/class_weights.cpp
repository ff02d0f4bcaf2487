// SPDX-License-Identifier: Apache-2.0
#include "launch/job/class_weights.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;
using core::Task;

constexpr size_t kShownClasses = 12;

float balanced_weight(const LabelledData& data, int64_t count) {
  if (count == 0) return 1.0F;
  if (data.task == Task::kMultiLabel) {
    if (count == data.samples) return 1.0F;
    return static_cast<float>(static_cast<double>(data.samples - count) / static_cast<double>(count));
  }
  const auto classes = data.names.size() - static_cast<size_t>(std::count(data.counts.begin(), data.counts.end(), 0));
  return static_cast<float>(static_cast<double>(data.samples) /
                            static_cast<double>(static_cast<int64_t>(classes) * count));
}

size_t class_of(const std::string& label, const std::vector<std::string>& names) {
  const auto found = std::find(names.begin(), names.end(), label);
  const std::vector<std::string> first(names.begin(),
                                       names.begin() + static_cast<int64_t>(std::min(names.size(), kShownClasses)));
  core::require(found != names.end(), ErrorKind::kUsage,
                "trainer_config.class_weights: {} is no label of the training file; expected labels of [{}{}]",
                core::quoted(label), fmt::join(first, ", "), names.size() > kShownClasses ? ", ..." : "");
  return static_cast<size_t>(found - names.begin());
}

}  // namespace

void require_loss_options_fit(const train::Options& options, Task task) {
  core::require(!options.class_weights.given() || task == Task::kSingleLabel || task == Task::kMultiLabel,
                ErrorKind::kUsage, "trainer_config.class_weights: {} has no classes; remove the key",
                task == Task::kCausalLm ? "a causal language model" : "a regression");
  core::require(!options.calibrate || task == Task::kSingleLabel || task == Task::kMultiLabel, ErrorKind::kUsage,
                "trainer_config.calibrate: {} has no scores of labels to calibrate; remove the key",
                task == Task::kCausalLm ? "a causal language model" : "a regression");
  core::require(
      options.label_smoothing_factor == 0.0 || task == Task::kSingleLabel || task == Task::kCausalLm, ErrorKind::kUsage,
      "trainer_config.label_smoothing_factor: the loss of a {} has no smoothing (transformers ignores the key "
      "there); remove it",
      task == Task::kMultiLabel ? "multi-label classification" : "regression");
}

std::vector<float> class_weights(const train::ClassWeights& asked, const LabelledData& data) {
  if (!asked.given()) return {};
  std::vector<float> weights(data.names.size(), 1.0F);
  for (size_t label = 0; asked.balanced && label < weights.size(); ++label) {
    weights[label] = balanced_weight(data, data.counts[label]);
  }
  for (const auto& [label, weight] : asked.of_labels) {
    weights[class_of(label, data.names)] = static_cast<float>(weight);
  }
  return weights;
}

std::string class_weight_text(const std::vector<std::string>& names, const std::vector<float>& weights) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < std::min(names.size(), kShownClasses); ++i) {
    parts.push_back(fmt::format("{} {:.4g}", names[i], weights[i]));
  }
  const std::string more =
      names.size() > kShownClasses ? fmt::format(" and {} more", names.size() - kShownClasses) : "";
  return fmt::format("{}{}", fmt::join(parts, ", "), more);
}

}  // namespace neoloom::launch
