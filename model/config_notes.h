// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "model/gpt_neo_config.h"

namespace neoloom::model {

/// Returns notes for the log: keys of config.json that contradict each other, and which one counts.
std::vector<std::string> config_notes(const GptNeoConfig& config);

}  // namespace neoloom::model
