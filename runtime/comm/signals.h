// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

namespace neoloom::comm {

/// Turns SIGUSR1, SIGUSR2, SIGTERM, SIGINT and SIGHUP (a closed terminal) into a flag that the training loop reads
/// between steps. The handler only sets the flag, so repeated signals are one request. System calls are restarted
/// (SA_RESTART). A SIGHUP that is ignored already, as under nohup, stays ignored. At most one object exists at a time.
/// Create it after NCCL's start, which has taken SIGUSR1 in some versions.
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

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace neoloom::comm
