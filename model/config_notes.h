// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "model/gpt_neo_config.h"

namespace neoloom::model {

/// Returns notes for the log: keys of config.json that contradict each other, and which one counts.
std::vector<std::string> config_notes(const GptNeoConfig& config);

/// Returns the dropouts of config.json above 0 ("resid_dropout 0.1, ..."), with which training refuses to start; empty:
/// none.
std::string dropouts_of(const GptNeoConfig& config);

}  // namespace neoloom::model
