// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/gpt_neo/weights.h"
#include "model/gpt_neo_config.h"
#include "model/options.h"
#include "runtime/core/cache.h"

namespace neoloom::model {

/// Identity of a model folder's weights: SHA-256 over the safetensors files' bytes. Remembered in the cache by path,
/// size and mtime, so that only a changed file is hashed again (verify_always: hash now).
std::string weights_hash(const std::string& folder, const core::Cache& cache, bool verify_always);

/// Path inside the cache of the converted weights in `dtype`, whole and with the right checksum unless another process
/// has verified that. Builds it when missing or damaged: checks the safetensors (single file or sharded index), reports
/// all missing, unexpected and misshaped tensors at once, converts, publishes by rename. A source whose hash is not
/// known is hashed while it is converted, so that it is read once. Call on one process per file system; then every rank
/// calls map_weights. Throws: Error(kWeights): no safetensors (with a hint for .bin files), damaged header, report of
/// tensors.
std::string prepare_weights(const std::string& folder, const GptNeoConfig& config, Dtype dtype,
                            const core::Cache& cache, bool verify_always);

/// Maps a converted file read-only; ranks of a node share its pages. Tensors are views of the mapping (CPU).
std::shared_ptr<Weights> map_weights(const std::string& converted_path, const GptNeoConfig& config);

/// The weights with the rows of their score in another order, or without it when `rows` is empty.
std::shared_ptr<const Weights> with_score_rows(const std::shared_ptr<const Weights>& weights,
                                               const std::vector<int64_t>& rows);

}  // namespace neoloom::model
