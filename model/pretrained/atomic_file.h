// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "runtime/core/unique_handle.h"

namespace neoloom::model {

/// A large file written in pieces and published at once: a temporary file beside `path`, fsync, rename, fsync of the
/// directory. Destroyed without publish(), it leaves nothing behind. Any number of processes may publish the same path.
/// All functions throw Error(kWeights) with the failing call and the system's reason.
class AtomicFile {
 public:
  /// Creates missing parent directories, and refuses at once when the file system has fewer than `expected_bytes` free.
  AtomicFile(const std::string& path, size_t expected_bytes);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* bytes, size_t count_bytes);
  void publish();

 private:
  [[noreturn]] void give_up(const char* call, int code) const;

  std::string path_;
  std::string directory_;
  std::string temporary_;
  core::UniqueFd file_;
};

/// Removes temporary files and folders of `path` that a killed process left (untouched for an hour).
void remove_stale_temporaries(const std::string& path);

/// A name beside `path` for building its next content: hidden, unique to this process and call.
std::string temporary_name(const std::string& path);

}  // namespace neoloom::model
