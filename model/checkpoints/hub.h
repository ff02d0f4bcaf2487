// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace neoloom::model {

/// Whether `name` cannot be a hub id: it begins with '/' or '.', or has two slashes. A folder may also be named like a
/// hub id.
bool is_local_path(const std::string& name);

/// Returns the folder of a model: `name` itself when it is a folder, else the snapshot of the hub id in Hugging Face's
/// cache (HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, ~/.cache/huggingface). Never uses the network.
/// Throws: Error(kWeights) naming the places searched and the command that fetches the model.
std::string resolve_model_folder(const std::string& name, const std::string& revision);

/// Returns the folder of a hub id in that cache, which need not exist. Throws: Error(kWeights) for another name.
std::string hub_folder(const std::string& name);

/// Throws: Error(kWeights) for a revision that no branch, tag or commit can be called, such as one that leaves the
/// cache.
void require_revision(const std::string& name, const std::string& revision);

/// Returns the snapshot of a revision (branch, tag or commit) in that cache; "": there is none.
/// Throws: Error(kWeights) for a bad id, revision or reference.
std::string find_snapshot(const std::string& name, const std::string& revision);

/// Returns the file that holds the token of `hf auth login` (HF_TOKEN_PATH, else the file token in HF_HOME).
std::string hub_token_path();

}  // namespace neoloom::model
