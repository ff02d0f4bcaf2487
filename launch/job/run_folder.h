// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "launch/config/run_config.h"

namespace neoloom::launch {

/// config.yaml of a run folder: the resolved configuration, and in a comment the folder that relative paths start from.
std::string run_config_text(const RunConfig& config);

/// Reads config.yaml of a run folder with `overrides`. Relative paths of the base model, the tokenizer, the validation
/// file and init_from that lead nowhere from here are taken from where the run was trained; where both lead somewhere,
/// the one from here counts, and a warning says so. Throws: Error(kUsage) as read_config.
RunConfig read_run_config(const std::string& run, const std::vector<std::string>& overrides);

/// Throws: Error(kWeights) when the base model of a run's configuration is a path that leads nowhere, with the places
/// looked at and the key that names another.
void require_base_there(const std::string& run, const RunConfig& config);

}  // namespace neoloom::launch
