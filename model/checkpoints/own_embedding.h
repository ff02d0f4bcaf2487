// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/options.h"

namespace neoloom::model {

/// Returns kWordEmbeddingName or kLmHeadName for the key of a frozen embedding in an adapter file, which PEFT stores
/// with save_embedding_layers; "" for other tensors, and for those of another shape than `shape`, that of the base.
std::string_view frozen_embedding(const std::string& key, const std::vector<int64_t>& found, const LoraOptions& lora,
                                  const std::vector<int64_t>& shape);

}  // namespace neoloom::model
