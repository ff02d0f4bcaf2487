// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/gpt_neo_config.h"

namespace neoloom::model {

/// What a model folder says about generation: its generation_config.json or, without one, its config.json, which is
/// where transformers' generate looks for its defaults. Absent: the file does not say.
struct GenerationConfig {
  std::string file;                    // name without folder
  std::vector<int64_t> eos_token_ids;  // generation stops at each of them; empty: at none
  std::optional<bool> do_sample;
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<double> repetition_penalty;
  std::optional<int64_t> max_new_tokens;
  std::vector<std::string> unknown;  // "num_beams 4": settings that change a text and that neoloom does not have

  /// Throws: Error(kWeights) naming file, key, expected and found.
  static GenerationConfig from_folder(const std::string& folder, const GptNeoConfig& config);
};

}  // namespace neoloom::model
