// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

namespace neoloom::model {

enum class HubFiles {
  kModel,      // configuration, weights and tokenizer
  kTokenizer,  // what a tokenizer needs
};

struct HubModel {
  std::string name;               // organisation/name
  std::string revision = "main";  // branch, tag or commit
  HubFiles files = HubFiles::kModel;
};

/// Whether the variables HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE forbid the network.
bool hub_is_offline();

/// Whether a folder of that name, or Hugging Face's cache, holds all files that are needed.
bool is_on_disk(const HubModel& model);

/// Downloads what the cache lacks into it, in Hugging Face's layout (blobs, snapshots, refs), and returns the
/// snapshot's folder. Of the weights takes what transformers takes: safetensors before pytorch_model.bin. Checks every
/// file by the hash that the hub gives, SHA-256 or that of a git blob. A later call goes on with a file that an earlier
/// one left unfinished. Processes that share the cache wait for each other. `say` gets lines for the user. Throws:
/// Error(kWeights) with what to do, Error(kUsage) for a bad variable, WriteError(kWeights).
std::string download(const HubModel& model, const std::function<void(const std::string&)>& say);

}  // namespace neoloom::model
