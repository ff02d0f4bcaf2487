// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "launch/config/run_config.h"

namespace neoloom::launch {

/// Returns the text of a run folder's config.yaml: the resolved configuration, and in a comment the folder that
/// relative paths refer to.
std::string run_config_text(const RunConfig& config);

/// Reads config.yaml of a run folder with `overrides`. Relative paths of the base model, the tokenizer, the validation
/// file and init_from that do not exist from the current folder are resolved from the folder in which the run was
/// trained. If both exist, the current folder wins with a warning.
/// Throws: Error(kUsage) as read_config.
RunConfig read_run_config(const std::string& run, const std::vector<std::string>& overrides);

/// Throws: Error(kWeights) when the base model of a run's configuration is a path that does not exist, with the places
/// searched and the key to set.
void require_base_there(const std::string& run, const RunConfig& config);

}  // namespace neoloom::launch
