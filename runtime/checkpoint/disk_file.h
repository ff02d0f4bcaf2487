// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "runtime/core/unique_handle.h"

namespace neoloom::checkpoint {

/// A file that is written under a temporary name of this process and published by rename. The destructor deletes it
/// unless it was renamed. All calls throw Error(kCheckpoint) with the failing call and the system's reason.
class TemporaryFile {
 public:
  /// `.tmp-<host>-<pid>-<name>` in `directory`; nothing is created yet.
  TemporaryFile(const std::string& directory, const std::string& name);
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }
  /// Creates the file with these bytes and fsyncs it.
  void write(std::span<const std::byte> bytes);
  /// Creates the file with `bytes` zeros allocated on the disk and maps it, so that writing to the mapping cannot run
  /// out of space.
  std::span<std::byte> map(size_t bytes);
  /// Unmaps the file, truncates it to `bytes` and fsyncs it.
  void finish_mapping(size_t bytes);
  void rename_to(const std::string& target);

 private:
  void unmap();

  std::string path_;
  std::span<std::byte> mapped_;
  bool renamed_ = false;
};

/// Whether no other living process of this host owns this temporary name: its process has ended, is this one, or ran on
/// another host.
bool is_abandoned_temporary(const std::string& name);

/// A whole file in memory, read once.
struct FileBytes {
  std::unique_ptr<std::byte[]> data;
  size_t size = 0;
  std::span<const std::byte> bytes() const { return {data.get(), size}; }
};
FileBytes read_whole_file(const std::string& path);

struct HashedFile {
  std::string sha256;
  uint64_t bytes = 0;
};
/// Hashes the file in pieces. Drops its page cache first where the system allows it, so that the bytes come from the
/// disk.
HashedFile hash_file(const std::string& path);

}  // namespace neoloom::checkpoint
