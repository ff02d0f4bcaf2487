// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/options.h"
#include "data/token_store.h"

namespace neoloom::train {

/// Data that a run is to learn from.
struct TrainingData {
  const data::TokenStore& store;
  std::string path;  // for messages
  data::Task task = data::Task::kSingleLabel;
  int64_t max_length_tokens = 0;
  int64_t empty_text_tokens = 0;  // what the tokenizer makes of ""
};

/// Looks for rows that teach nothing: no token after the prompt, an empty text, always the same label. Returns warnings
/// with counts. Throws: Error(kData) with counts when nothing at all can be learnt.
std::vector<std::string> check_training_data(const TrainingData& training);

/// Returns a warning with the count of rows that no loss can be measured on, or "". Throws: Error(kData) when there is
/// no other row.
std::string check_evaluation_data(const data::TokenStore& store, const std::string& path);

}  // namespace neoloom::train
