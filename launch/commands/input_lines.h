// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "runtime/comm/mpi_session.h"
#include "runtime/comm/signals.h"

namespace neoloom::launch {

/// Whether a path stands for standard input or output.
inline bool is_standard_stream(const std::string& path) { return path == "-"; }

inline constexpr const char* kStandardInput = "standard input";  // in messages

/// The lines of standard input, each as soon as it is there, until the input ends or a signal asks to stop.
class InputLines {
 public:
  /// Overwrites `line`, without its line break. Waits for it. Returns false at the end, and from a signal on.
  /// Throws: Error(kData) when standard input cannot be read.
  bool next(std::string& line);
  /// Tells the log whether a signal ended the lines.
  void tell_end(core::Logger& log) const;

 private:
  void read_more();

  comm::StopSignal stop_;
  std::string pending_;
  size_t begin_ = 0;     // of the next line
  size_t searched_ = 0;  // no line break before it
  bool ended_ = false;
  int64_t lines_ = 0;
};

/// Throws: CollectiveError(kUsage) unless the job has one rank, which alone has a standard input. `option`: what asks
/// for it.
void require_one_rank(const comm::MpiSession& session, const std::string& option);

/// Returns the line for a line that cannot be used: {"error": `reason`, "line": `number`}, without a line break.
std::string error_line(const std::string& reason, int64_t number);

}  // namespace neoloom::launch
