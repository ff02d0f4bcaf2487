// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "runtime/core/error.h"
#include "runtime/core/progress.h"

namespace neoloom::core {

/// A folder of files that can be rebuilt from their sources at any time. One process of the node verifies a file's
/// owner, permissions and checksum before any process uses it.
struct Cache {
  Cache(std::string folder) : directory(std::move(folder)) {}  // NOLINT: implicit, with default settings

  std::string directory;
  bool trusts_everybody = false;                     // runtime.trust_cache
  bool verified = false;                             // another process of this node has verified the files
  std::function<void(const std::string& line)> say;  // lines for the user; may be empty
  BeginWork show;                                    // may be empty

  /// Begins to show a piece of work on `bytes` of the cache or of its sources.
  ByteProgress begin(const std::string& what, uint64_t bytes) const { return {begin_work(show, what, "kB"), bytes}; }
  /// Requires that only the user and root can have created or written `path` in the folder.
  /// Throws: Error(kUsage) with the reason and the remedies.
  void require_own(const std::string& path) const;
  /// Calls `read` if `path` exists, after require_own. Returns false if it does not exist, or if `read` throws an Error
  /// (but for WriteError) or an error of JSON; in the latter case calls begin_rebuild.
  bool use(const std::string& path, const std::function<void()>& read) const;
  /// Tells the user that the file is rebuilt, and why. Renames a directory at `path`, which no file could replace.
  void begin_rebuild(const std::string& path, const std::string& reason) const;
};

}  // namespace neoloom::core
