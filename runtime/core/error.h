// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace neoloom::core {

/// What went wrong, in the classes a caller can act on. The values are the process exit codes.
enum class ErrorKind {
  kUsage = 2,       // command line, configuration, or ranks that disagree
  kData = 3,        // input rows, labels, encodings
  kWeights = 4,     // model weights or tokenizer files
  kCheckpoint = 5,  // checkpoints exist and none can be used
  kPeer = 6,        // another rank or the network failed: restart and resume
  kNumeric = 7,     // too many non-finite steps
  kDevice = 8,      // the device asked for is not there, or refused
  kInternal = 70,   // a bug in neoloom
  kOutput = 74,     // output, or a run's final result, could not be written: free space, run the same command again
};

/// Exit code of a run that was asked to stop and saved its state, which is no error. mpirun returns it when all ranks
/// do.
inline constexpr int kExitStopped = 75;

/// One message says what, where, expected, found, and what to do. `main` prints it once for the whole job.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }
  int exit_code() const { return static_cast<int>(kind_); }

 private:
  ErrorKind kind_;
};

/// A file or folder could not be created or written. Callers catch it to name the configuration key that sets its path.
class WriteError : public Error {
 public:
  using Error::Error;
};

/// Throws Error(kind) with a message formatted by fmt.
template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

/// Throws Error(kind) with a formatted message unless `condition` holds.
template <typename... Args>
void require(bool condition, ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) fail(kind, format, std::forward<Args>(args)...);
}

}  // namespace neoloom::core
