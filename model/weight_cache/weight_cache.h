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

/// Returns the identity of a model folder's weights, SHA-256 over its files. The cache remembers hashes by
/// path, size and mtime, so that only changed files are hashed again (verify_always: all are).
std::string weights_hash(const std::string& folder, const core::Cache& cache, bool verify_always);

/// Returns the path in the cache of the weights converted to `dtype`. Verifies the file's checksum, unless another
/// process has done so (core::Cache::verified). Builds the file when it is missing or damaged: checks the sources
/// (single file or shards), converts them and publishes by rename. Hashes a source while converting it if its hash is
/// not known. Call it in one process per file system; then every rank calls map_weights.
/// Throws: Error(kWeights) when there are no weights, a file is damaged, or tensors
/// are missing, unexpected or misshaped (all in one report).
std::string prepare_weights(const std::string& folder, const GptNeoConfig& config, Dtype dtype,
                            const core::Cache& cache, bool verify_always);

/// Maps a converted file read-only. Ranks of a node share its pages. Tensors are CPU views of the mapping.
std::shared_ptr<Weights> map_weights(const std::string& converted_path, const GptNeoConfig& config);

/// Returns the weights with `rows` of score in this order, or without score when `rows` is empty.
std::shared_ptr<const Weights> with_score_rows(const std::shared_ptr<const Weights>& weights,
                                               const std::vector<int64_t>& rows);

}  // namespace neoloom::model
