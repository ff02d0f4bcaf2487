// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/watchdog.h"
#include "runtime/core/error.h"
#include "runtime/core/logger.h"

namespace neoloom::comm {

/// Default peer timeout. It must exceed the seconds for which a host can pause (network, file systems, a snapshot), and
/// bounds how long a job with a lost rank keeps its nodes. A slow rank that is alive never triggers it.
inline constexpr double kPeerTimeoutSeconds = 300.0;

/// Owns MPI: MPI_Init_thread (MPI_THREAD_MULTIPLE asked for) to MPI_Finalize. `main` holds the only one; everything
/// that talks to peers holds a reference to it. Without a launcher (launcher.h) it is a world of one that never calls
/// MPI: Open MPI's singleton start costs time, and its session directory makes commands that start at the same moment
/// fail. Control messages go through it, gradients through a Communicator.
/// A watchdog covers every wait for peers, from MPI_Init to MPI_Finalize. The process ends with code 6 and one message
/// when a peer is silent for the peer timeout, or when live peers keep it waiting for `Patience` timeouts. Until
/// set_peer_timeout the timeout is $NEOLOOM_PEER_TIMEOUT_SECONDS, else kPeerTimeoutSeconds.
class MpiSession {
 public:
  /// Throws: Error(kPeer) when MPI cannot start.
  MpiSession(int* argc, char*** argv);
  /// MPI_Finalize, unless an exception is in flight on a world of several ranks (peers may be waiting: see abort).
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  /// How long live peers may keep others waiting, in multiples of the peer timeout.
  enum Patience : int64_t {
    kShort = 1,       // no rank has work of its own
    kWork = 24,       // 2 hours by default: uneven shares of work, a file written by one rank
    kBuilding = 288,  // 24 hours by default: one rank builds caches
  };
  /// Names what this rank does, and its waits, for as long as the object lives.
  class Phase {
   public:
    ~Phase();
    Phase(const Phase&) = delete;
    Phase& operator=(const Phase&) = delete;

   private:
    friend class MpiSession;
    Phase(MpiSession& session, const std::string& name, Patience patience);
    MpiSession& session_;
    std::string outer_name_;
    Patience outer_patience_;
  };
  [[nodiscard]] Phase phase(const std::string& name, Patience patience = kWork) { return {*this, name, patience}; }
  /// Called on this rank with the name of each phase that it enters: for tests.
  void on_phase(std::function<void(const std::string&)> hook) { phase_hook_ = std::move(hook); }

  /// Sets runtime.peer_timeout_seconds of the configuration. Local.
  void set_peer_timeout(double seconds);
  double peer_timeout_seconds() const { return peer_timeout_seconds_; }
  /// Watches a wait for peers outside of this class, until the guard is destroyed.
  [[nodiscard]] Watchdog::Guard guard(const std::string& name, int64_t step, double deadline_seconds);
  /// The same with the name and patience of the current phase.
  [[nodiscard]] Watchdog::Guard guard();

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// Rank and size among the ranks that share this host's memory (MPI_Comm_split_type SHARED).
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }
  bool is_root() const { return rank_ == 0; }
  std::string host_name() const;
  /// The log of this rank. Lines of all but rank 0 begin with rank and host.
  core::Logger& log() { return *log_; }
  /// E.g. "Open MPI 4.1.4".
  std::string library_version() const;

  /// Broadcasts root's `text`. Collective: every rank.
  void broadcast(std::string& text, int root = 0);
  /// Broadcasts root's `bytes` [count_bytes], which may be more than 2 GiB. Collective: every rank.
  void broadcast(void* bytes, size_t count_bytes, int root = 0);
  /// Broadcasts the `text` of each host's first rank, below 2 GiB, to the ranks of that host. Collective: every rank.
  void broadcast_on_host(std::string& text);
  /// Reduce element-wise over [n], in place. Collective: every rank.
  void all_reduce_max(std::span<int64_t> values);
  void all_reduce_min(std::span<int64_t> values);
  void all_reduce_sum(std::span<int64_t> values);
  /// Returns the texts of all ranks, in rank order. Collective: every rank.
  std::vector<std::string> all_gather(const std::string& text);
  /// Polls MPI_Ibarrier with sleeps, so that waiting ranks leave the cores to the one that works. Collective: every
  /// rank.
  void sleeping_barrier();

  /// Runs `work` on rank 0 while the others poll with sleeps, and returns its result on every rank. When
  /// `work` throws core::Error, every rank throws the same error, so that the whole job ends with one message and one
  /// exit code.
  /// Collective: every rank. Throws: CollectiveError (collective_error.h) with the kind and text of rank 0's error.
  std::string run_on_root(const std::function<std::string()>& work);

  /// Call it after rank-local work that may fail. When any rank passes an error, all ranks throw the error of the
  /// lowest such rank; the text names its rank and host. Collective: every rank. Throws: CollectiveError.
  void agree_no_error(std::optional<core::Error> error);

  /// Runs `work` on every rank, then agree_no_error.
  /// Collective: every rank.
  void run_on_all_or_fail(const std::function<void()>& work);

  /// Ends all ranks with this exit code; never returns. For errors of one rank, while peers may be waiting for it.
  [[noreturn]] void abort(int exit_code);

  /// Marks a boundary (e.g. the start of an optimizer step) for tools that watch MPI calls: MPI_Pcontrol. Local.
  void mark(int64_t value);

  /// A communicator over host memory. Collective: every rank.
  std::unique_ptr<Communicator> make_host_communicator();

 private:
  void broadcast_outcome(const std::optional<core::Error>& error, std::string& text, int root);
  void enter(const std::string& name, Patience patience);
  struct State;                        // MPI handles
  std::unique_ptr<core::Logger> log_;  // first: phases are logged from the start
  std::unique_ptr<State> state_;
  int rank_ = 0;
  int size_ = 1;
  int local_rank_ = 0;
  int local_size_ = 1;
  std::string phase_name_ = "start-up";
  Patience patience_ = kWork;
  double peer_timeout_seconds_;
  std::function<void(const std::string&)> phase_hook_;
};

}  // namespace neoloom::comm
