// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "runtime/core/unique_handle.h"

namespace neoloom::metrics {

/// A file to which a run appends records. If it cannot be opened or written (a full disk, a folder in its place), one
/// warning says so; up to 4 MiB of records stay in memory, and each new record retries.
class AppendedFile {
 public:
  static constexpr size_t kMostWaitingBytes = size_t{4} << 20;

  /// Creates the folder, then opens for appending. `name` stands for the file in messages. `lines`: records are lines;
  /// half a line that a killed process left is ended.
  /// Throws: Error(kUsage) when there can be no such folder.
  AppendedFile(std::string path, std::string name, bool lines);
  ~AppendedFile();
  AppendedFile(const AppendedFile&) = delete;
  AppendedFile& operator=(const AppendedFile&) = delete;

  void append(const std::string& record);

 private:
  bool open();
  void write_waiting();
  void told_of(int code);

  std::string path_, name_;
  bool lines_ = false;
  core::UniqueFd descriptor_;
  std::string waiting_;  // not yet written; a part of the first record may be
  int64_t dropped_ = 0;  // records beyond kMostWaitingBytes
  bool failing_ = false;
};

}  // namespace neoloom::metrics
