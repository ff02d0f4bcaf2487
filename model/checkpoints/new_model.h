// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "model/gpt_neo_config.h"
#include "runtime/core/cache.h"

namespace neoloom::model {

/// Writes config.json and model.safetensors (fp32) of a model with random weights, as transformers starts one: linears
/// and embeddings ~ N(0, initializer_range^2), biases 0, LayerNorms the identity. Each tensor is a pure function of its
/// name, its shape and `seed`. Builds the folder under a temporary name (publish_folder). `cache`: shows how far it is.
void write_new_model(const std::string& folder, const GptNeoConfig& config, uint64_t seed, const core::Cache& cache);

}  // namespace neoloom::model
