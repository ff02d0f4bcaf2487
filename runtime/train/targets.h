// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/hygiene.h"
#include "data/options.h"
#include "data/token_store.h"

namespace neoloom::train {

/// Training data to check.
struct TrainingData {
  const data::TokenStore& store;
  std::string path;  // for messages
  data::Task task = data::Task::kSingleLabel;
  int64_t max_length_tokens = 0;
  data::EmptyTokens empty;
};

/// Looks for samples that teach nothing: no token after the prompt, an empty text, prompt or response, the same label
/// everywhere. Returns warnings with counts. Throws: Error(kData) with counts when no sample teaches anything.
std::vector<std::string> check_training_data(const TrainingData& training);

/// Returns a warning with the count of samples without a target, which have no loss, or "". Throws: Error(kData) when
/// no sample has a target.
std::string check_evaluation_data(const data::TokenStore& store, const std::string& path);

/// Counts the samples by their length: at most 20 bins of equal width, as a list of {from, to, samples}. Both ends are
/// lengths in tokens that belong to the bin.
nlohmann::ordered_json length_histogram(const data::TokenStore& store);

}  // namespace neoloom::train
