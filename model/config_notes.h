// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "model/gpt_neo_config.h"

namespace neoloom::model {

/// What a log should say about a config.json: keys that contradict each other, and which one counts.
std::vector<std::string> config_notes(const GptNeoConfig& config);

/// Dropouts of config.json above 0 ("resid_dropout 0.1, ..."), which training would have to apply; empty: none.
std::string dropouts_of(const GptNeoConfig& config);

}  // namespace neoloom::model
