// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "data/tokenizer/tokenizer.h"
#include "model/gpt_neo_config.h"
#include "model/options.h"
#include "runtime/core/cache.h"

namespace neoloom::launch {

/// Returns whether training starts from random weights: model_config gives a shape instead of a name.
bool is_new_model(const model::Options& options);

/// Returns the new model's configuration, checked. The tokenizer gives the special tokens, and vocab_size unless that
/// is set. Throws: Error(kUsage) with the key, what was expected and found.
model::GptNeoConfig new_model_config(const model::Options& options, const data::Tokenizer& tokenizer);

/// Returns the cache's folder with config.json and the random weights of `seed`, and writes it where it is missing.
/// Equal arguments give equal bytes on every machine of one instruction set.
std::string new_model_folder(const model::GptNeoConfig& config, uint64_t seed, const core::Cache& cache);

}  // namespace neoloom::launch
