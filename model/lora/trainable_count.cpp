// SPDX-License-Identifier: Apache-2.0
#include "model/lora/trainable_count.h"

#include "model/lora/target_modules.h"

namespace neoloom::model {
namespace {

constexpr const char* kBody = "body";  // all of it, in one slot

int64_t factored(const std::vector<int64_t>& shape) { return shape.size() == 2 ? shape[0] + shape[1] : shape[0]; }

int64_t factored_body(const GptNeoConfig& config) {
  const int64_t h = config.hidden_size;
  const int64_t embedding = factored({config.vocab_size, h});
  int64_t block = 0;
  for (const BlockParameter& parameter : kBlockParameters) block += factored(parameter_shape(config, parameter));
  return (config.tie_word_embeddings ? 1 : 2) * embedding + factored({config.max_position_embeddings, h}) +
         config.num_layers * block + 2 * h;
}

}  // namespace

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
        if (lora->use_dora) layout.add("magnitude", {out}, true);
        if (lora->lora_bias) layout.add("bias of B", {out}, false);
      }
      for (const BlockParameter& parameter : kBlockParameters) {
        if (trains_bias(*lora, layer, parameter)) layout.add("bias", parameter_shape(config, parameter), false);
      }
    }
    const bool ln_f = trains_whole(*lora, "ln_f");
    if (ln_f) layout.add("ln_f", {config.hidden_size}, false);
    if (ln_f || lora->bias == "all") layout.add("bias of ln_f", {config.hidden_size}, false);
    const std::vector<int64_t> embedding = {config.vocab_size, config.hidden_size};
    if (const auto tokens = static_cast<int64_t>(lora->trainable_token_indices.size()); tokens > 0) {
      layout.add("tokens", {tokens, config.hidden_size}, true);
    }
    if (trains_whole(*lora, "wte")) layout.add("wte", embedding, true);
    if (num_labels == 0 && trains_whole(*lora, "lm_head")) layout.add("lm_head", embedding, true);
  } else {
    layout.add(kBody, {config.body_parameters()}, true);
  }
  if (num_labels > 0) layout.add("score", {num_labels, config.hidden_size}, true);
  int64_t factored_elements = lora ? 0 : factored_body(config);
  for (const ParameterSlot& slot : layout.slots) {
    if (slot.name != kBody) factored_elements += factored(slot.shape);
  }
  return {layout.trainable_elements, layout.total_elements, factored_elements};
}

}  // namespace neoloom::model
