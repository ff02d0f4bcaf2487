// SPDX-License-Identifier: Apache-2.0
#include "model/adapters/count.h"

#include "model/adapters/targets.h"

namespace neoloom::model {
namespace {

// (in, out) features of a linear.
std::pair<int64_t, int64_t> features(const GptNeoConfig& config, LinearSite site) {
  if (site == LinearSite::kCFc) return {config.hidden_size, config.intermediate_size};
  if (site == LinearSite::kCProj) return {config.intermediate_size, config.hidden_size};
  return {config.hidden_size, config.hidden_size};
}

}  // namespace

TrainableCount count_trainable(const GptNeoConfig& config, const std::optional<LoraOptions>& lora, int64_t num_labels) {
  ParameterLayout layout;
  if (lora) {
    for (const auto& layer : match_targets(lora->target_modules, config.num_layers)) {
      for (const LinearSite site : kLinearSites) {
        if (!layer[static_cast<size_t>(site)]) continue;
        const auto [in, out] = features(config, site);
        layout.add("A", {lora->r, in}, true);
        layout.add("B", {out, lora->r}, true);
      }
    }
  } else {
    layout.add("body", {config.body_parameters()}, true);
  }
  if (num_labels > 0) layout.add("score", {num_labels, config.hidden_size}, true);
  return {layout.trainable_elements, layout.total_elements};
}

double activation_bytes(const GptNeoConfig& config, int64_t rows, int64_t length) {
  const double tokens = static_cast<double>(rows) * static_cast<double>(length);
  const auto h = static_cast<double>(config.hidden_size);
  const auto ff = static_cast<double>(config.intermediate_size);
  const double kept = static_cast<double>(config.num_layers) * tokens * (6.0 * h + ff) * 4.0;
  return kept + tokens * ff * 4.0 * 4.0;
}

}  // namespace neoloom::model
