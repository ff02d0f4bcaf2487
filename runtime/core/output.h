// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "runtime/core/unique_handle.h"

namespace neoloom::core {

/// Standard output for a command's result, with every write checked. The destructor drops what finish() has not
/// written, since an exception is in flight then.
/// Throws: Error(kOutput) when bytes could not be written (disk full, closed descriptor). A closed pipe ends the
/// process as SIGPIPE does, without a message.
class Output {
 public:
  explicit Output(int descriptor = STDOUT_FILENO, std::string name = "standard output");
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  void write(std::string_view text);
  template <typename... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) {
    write(fmt::format(format, std::forward<Args>(args)...));
  }
  /// Writes everything to the descriptor now.
  void flush();
  /// Flushes, and reports errors that the file system reports only on close.
  void finish();

 private:
  [[noreturn]] void give_up(int code) const;
  int descriptor_;
  std::string name_;
  std::string pending_;
};

/// Writes `text` to standard output and finishes it.
void print_output(std::string_view text);

/// Writes a result to a path that the user gave. A regular file, or the target of a link, is replaced atomically
/// (publish_file). A device or a pipe is written to directly. Throws: Error(kOutput).
void write_output_file(const std::string& path, std::string_view text);

class AtomicFile;

/// A result that is written piece by piece: to standard output, to a device or a pipe at once; else to a temporary file
/// beside the path, which finish() puts in its place. Without finish() a regular file stays as it was.
/// Throws: Error(kOutput).
class ResultFile {
 public:
  /// An empty path: standard output.
  explicit ResultFile(const std::string& path);
  ~ResultFile();
  ResultFile(const ResultFile&) = delete;
  ResultFile& operator=(const ResultFile&) = delete;

  void write(std::string_view text);
  void finish();

 private:
  UniqueFd stream_;
  std::optional<Output> output_;
  std::unique_ptr<AtomicFile> file_;
  size_t size_bytes_ = 0;
};

/// Checks, before the work, that a result can be written to `path` later. Creates its folder.
/// Throws: Error(kOutput).
void prepare_output_file(const std::string& path);

}  // namespace neoloom::core
