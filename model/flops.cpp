// SPDX-License-Identifier: Apache-2.0
#include "model/flops.h"

#include <algorithm>

namespace neoloom::model {

double attention_flops_per_token(const GptNeoConfig& config, int64_t length) {
  const auto tokens = static_cast<double>(length);
  const auto window = static_cast<double>(std::min(config.window_size, length));
  double keys = 0;  // mean number of visible keys, summed over blocks
  for (const bool local : config.layer_is_local) {
    keys += local ? (window * (window + 1) / 2 + (tokens - window) * window) / tokens : (tokens + 1) / 2;
  }
  return 3 * 4 * static_cast<double>(config.hidden_size) * keys;
}

double training_flops_per_token(const ModelSetup& setup, int64_t trainable_elements, int64_t length) {
  const GptNeoConfig& config = setup.config;
  const auto h = static_cast<double>(config.hidden_size);
  const auto ff = static_cast<double>(config.intermediate_size);
  double frozen = static_cast<double>(config.num_layers) * (4 * h * h + 2 * h * ff);
  if (setup.head == Head::kCausalLm) frozen += static_cast<double>(config.vocab_size) * h;
  const double attention = attention_flops_per_token(config, length);
  if (!setup.lora) return 6 * frozen + attention;
  return 4 * frozen + 6 * static_cast<double>(trainable_elements) + attention;
}

}  // namespace neoloom::model
