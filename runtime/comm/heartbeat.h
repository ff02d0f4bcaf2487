// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "runtime/comm/watchdog.h"

namespace neoloom::comm {

/// A thread that tells rank 0 what this rank is doing, a few times per timeout, and tells the watchdog what rank 0 has
/// heard from all. A stopped rank falls silent; one that works or waits in a collective does not, however long.
/// Messages between pairs on MPI_COMM_WORLD, so that it works as soon as MPI_Init is through and takes the way that
/// data takes; two small messages per rank and beat, none of which the ranks wait for. Needs MPI_THREAD_MULTIPLE. Owns:
/// one thread.
class Heartbeat {
 public:
  Heartbeat(int rank, int size, Watchdog& watchdog);
  /// Without leave: stops at once, whatever the peers do.
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  /// Beats ten times in this timeout, but at least every second.
  void set_peer_timeout(double seconds);

  /// Returns when every rank is here and no message is under way: MPI_Finalize may follow. Until then the ranks that
  /// are here go on beating. Collective: every rank.
  void leave();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace neoloom::comm
