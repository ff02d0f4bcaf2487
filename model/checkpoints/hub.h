// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace neoloom::model {

/// Whether `name` cannot be a hub id: it begins with '/' or '.', or has two slashes. A folder may also be named like a
/// hub id.
bool is_local_path(const std::string& name);

/// Returns the folder of a model: `name` itself when it is a folder, else the snapshot of the hub id in Hugging Face's
/// cache (HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, ~/.cache/huggingface). Never uses the network.
/// Throws: Error(kWeights) naming the places searched and the commands that fetch the model.
std::string resolve_model_folder(const std::string& name, const std::string& revision);

}  // namespace neoloom::model
