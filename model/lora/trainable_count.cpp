// SPDX-License-Identifier: Apache-2.0
#include "model/lora/trainable_count.h"

#include "model/lora/target_modules.h"

namespace neoloom::model {

TrainableCount count_trainable(const GptNeoConfig& config, const std::optional<LoraOptions>& lora, int64_t num_labels) {
  ParameterLayout layout;
  if (lora) {
    for (const auto& layer : adapter_map(*lora, config.num_layers)) {
      for (const LinearSite site : kLinearSites) {
        const AdapterShape& adapter = layer[static_cast<size_t>(site)];
        if (!adapter.present()) continue;
        const auto [in, out] = features_of(config, site);
        layout.add("A", {adapter.rank, in}, true);
        layout.add("B", {out, adapter.rank}, true);
      }
    }
  } else {
    layout.add("body", {config.body_parameters()}, true);
  }
  if (num_labels > 0) layout.add("score", {num_labels, config.hidden_size}, true);
  return {layout.trainable_elements, layout.total_elements};
}

}  // namespace neoloom::model
