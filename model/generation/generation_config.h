// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/gpt_neo_config.h"

namespace neoloom::model {

/// Generation settings of a model folder: of its generation_config.json or, without one, of its config.json, as
/// transformers' generate reads its defaults. nullopt: the file does not set it.
struct GenerationConfig {
  std::string file;                    // name without folder
  std::vector<int64_t> eos_token_ids;  // generation stops at each of them; empty: at none
  std::optional<bool> do_sample;
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<int64_t> no_repeat_ngram_size;
  std::optional<int64_t> min_new_tokens;
  std::optional<int64_t> num_return_sequences;
  std::vector<std::string> stop_strings;
  std::optional<int64_t> max_new_tokens;
  std::vector<std::string> unknown;  // settings that would change a text and that neoloom lacks: "num_beams 4"

  /// Throws: Error(kWeights) naming file, key, expected and found.
  static GenerationConfig from_folder(const std::string& folder, const GptNeoConfig& config);
};

}  // namespace neoloom::model
