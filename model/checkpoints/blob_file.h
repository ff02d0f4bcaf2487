// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "model/checkpoints/hub_requests.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::model {

/// A file of Hugging Face's cache, named by its hash. Holds the lock of that name, which processes and
/// huggingface_hub share, until it is destroyed. All functions throw Error(kWeights), and WriteError(kWeights).
class BlobFile {
 public:
  /// Waits for the lock.
  BlobFile(std::string path, const std::string& lock_path);
  /// Downloads the content unless it is there, going on with PATH.incomplete. Checks its size and hash. `name` is for
  /// lines to the user.
  void fetch(const HubFile& file, const std::string& name, const HubRequests& hub,
             const std::function<void(const std::string&)>& say) const;
  /// Makes `pointer` a symbolic link to it, or moves it there where the file system has none.
  void link(const std::string& pointer) const;

 private:
  std::string path_;
  core::UniqueFd lock_;
};

}  // namespace neoloom::model
