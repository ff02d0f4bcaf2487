// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>

#include "runtime/core/files.h"

namespace neoloom::launch {

/// Reads hf_defaults.json, which make_hf_defaults.py wrote from transformers and peft themselves: group -> key ->
/// default.
inline nlohmann::json hugging_face_defaults() {
  nlohmann::json defaults = nlohmann::json::parse(core::read_file(NL_SOURCE_DIR "/tests/unit/config/hf_defaults.json"));
  defaults.erase("versions");
  return defaults;
}

}  // namespace neoloom::launch
