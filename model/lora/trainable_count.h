// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "model/gpt_neo_config.h"
#include "model/options.h"
#include "model/parameter_layout.h"

namespace neoloom::model {

/// Number of parameters that a configuration trains.
struct TrainableCount {
  int64_t parameters = 0;         // PEFT's count
  int64_t flat_elements = 0;      // with padding to 64-byte boundaries
  int64_t factored_elements = 0;  // rows + columns of each matrix, and elements of each vector
};

/// Counts LoRA's parameters (without `lora`, every parameter) and the score head of `num_labels` classes (0: causal
/// LM). Loads no weights.
/// Throws: Error(kUsage) when a target matches no module.
TrainableCount count_trainable(const GptNeoConfig& config, const std::optional<LoraOptions>& lora, int64_t num_labels);

}  // namespace neoloom::model
