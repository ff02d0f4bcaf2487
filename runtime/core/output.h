// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <utility>

namespace neoloom::core {

/// Where the result of a command goes: standard output, whose every byte is asked after. What was not finished when
/// the object goes is dropped, since an error is on its way.
/// Throws: Error(kOutput) when bytes could not be written (disk full, closed descriptor). A reader that has gone away
/// ends the process as SIGPIPE does, without a message.
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
  /// Hands everything to the system now.
  void flush();
  /// The last flush, and what the file system says when the descriptor is closed.
  void finish();

 private:
  [[noreturn]] void give_up(int code) const;
  int descriptor_;
  std::string name_;
  std::string pending_;
};

/// Writes `text` to standard output and finishes it.
void print_output(std::string_view text);

/// A result that the user gave a path for: published as a whole (publish_file) to a regular file or behind a link; to
/// a device or a pipe it is written as it is. Throws: Error(kOutput).
void write_output_file(const std::string& path, std::string_view text);

/// Before the work: whether a result may be written to `path` later. Creates its folder.
/// Throws: Error(kOutput).
void prepare_output_file(const std::string& path);

}  // namespace neoloom::core
