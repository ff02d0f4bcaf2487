// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "model/gpt_neo/weights.h"
#include "model/gpt_neo_config.h"
#include "model/options.h"
#include "runtime/core/cache.h"

namespace neoloom::model {

/// Returns the path of the packed weights (model/cpu/packed_weights.h) of a converted file's matrices, for inputs of
/// `compute_dtype`. Builds the file, beside the converted one, when it is missing. Returns "" where this CPU has no
/// packed GEMM. Call it in one process per file system; then every rank calls map_packed_weights.
/// Throws: Error(kWeights).
std::string prepare_packed_weights(const std::string& converted_path, const GptNeoConfig& config, Dtype compute_dtype,
                                   const core::Cache& cache, bool verify_always);

/// Maps the packed weights read-only into `weights`; does nothing for an empty path. Ranks of a node share the pages.
/// Throws: Error(kWeights) when the file does not fit the weights.
void map_packed_weights(const std::string& packed_path, Dtype compute_dtype, Weights& weights);

}  // namespace neoloom::model
