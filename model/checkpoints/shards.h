// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/checkpoints/safetensors.h"

namespace neoloom::model {

/// Writes the weights of a model folder as transformers does: model.safetensors, or, above `max_shard_bytes`, files of
/// at most so many bytes of tensors with model.safetensors.index.json. A larger tensor has a file of its own.
/// Throws: as write_safetensors.
void write_weight_files(const std::string& folder, const std::vector<TensorToWrite>& tensors, int64_t max_shard_bytes);

}  // namespace neoloom::model
