// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "runtime/core/error.h"

namespace neoloom::core {

/// A folder of files that can be made anew from their sources at any time. Nothing in it is used before one process of
/// the node has verified it: who may have written it, and its checksum.
struct Cache {
  Cache(std::string folder) : directory(std::move(folder)) {}  // NOLINT: a folder is a cache without further wishes

  std::string directory;
  bool trusts_everybody = false;                     // runtime.trust_cache
  bool verified = false;                             // another process of this node has verified what is used
  std::function<void(const std::string& line)> say;  // lines for the user; may be empty

  /// Nobody but the user and root could have written what lies at `path` in the folder, nor put it there.
  /// Throws: Error(kUsage) with the reason and the ways out.
  void require_own(const std::string& path) const;
  /// Says that the file is made anew, and why. A folder in its place is set aside: no file can replace it.
  void give_up(const std::string& path, const std::string& reason) const;
};

}  // namespace neoloom::core
