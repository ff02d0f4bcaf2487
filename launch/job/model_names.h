// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "launch/command_line.h"

namespace neoloom::launch {

/// Returns the models of a command, each with its name in the output: NAME of NAME=FOLDER, else the folder's own name;
/// of RUN/adapter, that of RUN. A single model without a NAME has an empty one. A word that is a path of something is
/// no NAME=FOLDER.
/// Throws: Error(kUsage) for a name twice, or `index`, which the rows of predict have.
std::vector<std::pair<std::string, ModelArguments>> name_models(const ModelsArguments& arguments);

}  // namespace neoloom::launch
