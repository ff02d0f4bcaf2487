// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "runtime/core/error.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::core {

/// A file that appears at `path` complete or not at all. Callers write pieces, in any order, to a temporary file beside
/// it (temporary_name). publish() then calls fsync, rename, and fsync on the directory. The destructor deletes what was
/// not published. Several processes may publish the same path. All functions throw WriteError(kind) with the failing
/// call and the system's reason.
class AtomicFile {
 public:
  /// Creates missing parent directories. Throws at once when the file system has fewer than `expected_bytes` free.
  AtomicFile(const std::string& path, size_t expected_bytes, ErrorKind kind);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// For libraries that write by name. The file exists and is empty.
  const std::string& temporary_path() const { return temporary_; }
  size_t size_bytes() const;
  void write_at(size_t offset_bytes, const void* bytes, size_t count_bytes);
  /// Returns file_checksum() of the file as written so far (runtime/core/checksum.h).
  std::string checksum(size_t size_bytes, size_t digits_at) const;
  void publish();
  /// Publishes under another name in the same folder.
  void publish_as(const std::string& path);

 private:
  [[noreturn]] void give_up(const char* call, int code) const;

  std::string path_;
  std::string directory_;
  std::string temporary_;
  ErrorKind kind_;
  size_t unsent_bytes_ = 0;  // written, and writeback not yet started
  UniqueFd file_;
};

/// Removes temporary files and folders of `path` that a killed process left (untouched for an hour).
void remove_stale_temporaries(const std::string& path);

}  // namespace neoloom::core
