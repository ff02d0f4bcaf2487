// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

namespace neoloom::comm {

/// Turns SIGUSR1, SIGUSR2, SIGTERM, SIGINT and SIGHUP (a closed terminal) into a flag that the training loop reads
/// between steps. The handler only sets it: repeated signals, even a storm, are one request. At most one object at a
/// time; make it after NCCL's start, which has taken SIGUSR1 in some versions. System calls are restarted. A SIGHUP
/// that was ignored at the start, as nohup does, stays ignored.
class StopSignal {
 public:
  /// Throws: Error(kInternal) when another one exists or a handler cannot be installed.
  StopSignal();
  /// Restores the handlers found at construction.
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  bool requested() const { return signal_number() != 0; }
  /// The first signal received, 0 when none.
  int signal_number() const;
  /// False when somebody replaced a handler since.
  bool still_installed() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace neoloom::comm
