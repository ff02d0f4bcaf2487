// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "runtime/comm/watchdog.h"

namespace neoloom::comm {

/// A thread that sends rank 0 what this rank is doing, several times per peer timeout, and gives the watchdog what rank
/// 0 has heard from all ranks. A stopped rank falls silent. A rank that works or waits in a collective keeps beating,
/// however long it takes. It uses point-to-point messages on MPI_COMM_WORLD: they work as soon as MPI_Init returns, and
/// use the same transport as data. Each beat costs two small non-blocking messages per rank. Needs MPI_THREAD_MULTIPLE.
/// Owns: one thread.
class Heartbeat {
 public:
  Heartbeat(int rank, int size, Watchdog& watchdog);
  /// Stops at once if leave() was not called, whatever the peers do.
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  /// Beats ten times in this timeout, but at least every second.
  void set_peer_timeout(double seconds);

  /// Returns when every rank has called it and no message is in flight, so that MPI_Finalize may follow. Ranks that
  /// wait here keep beating. Collective: every rank.
  void leave();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace neoloom::comm
