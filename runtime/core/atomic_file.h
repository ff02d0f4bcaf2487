// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "runtime/core/error.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::core {

/// A file that appears as a whole or not at all: written in pieces, in any order, to a temporary file beside `path`
/// (temporary_name), then fsync, rename, fsync of the directory. Destroyed without publish(), it leaves nothing behind.
/// Any number of processes may publish the same path. All functions throw WriteError(kind) with the failing call and
/// the system's reason.
class AtomicFile {
 public:
  /// Creates missing parent directories, and refuses at once when the file system has fewer than `expected_bytes` free.
  AtomicFile(const std::string& path, size_t expected_bytes, ErrorKind kind);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// For libraries that write by name; the file is there and empty.
  const std::string& temporary_path() const { return temporary_; }
  size_t size_bytes() const;
  void write_at(size_t offset_bytes, const void* bytes, size_t count_bytes);
  /// Of all that was written (runtime/core/checksum.h).
  std::string checksum(size_t size_bytes, size_t digits_at) const;
  void publish();
  /// Under another name in the same folder than the one it was made for.
  void publish_as(const std::string& path);

 private:
  [[noreturn]] void give_up(const char* call, int code) const;

  std::string path_;
  std::string directory_;
  std::string temporary_;
  ErrorKind kind_;
  size_t unsent_bytes_ = 0;  // written, and not yet on its way to the disk
  UniqueFd file_;
};

/// Removes temporary files and folders of `path` that a killed process left (untouched for an hour).
void remove_stale_temporaries(const std::string& path);

}  // namespace neoloom::core
