// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

namespace neoloom::comm {

/// What a rank is doing. Plain bytes: it travels between ranks.
struct Activity {
  std::array<char, 64> host{};   // empty: not heard from yet
  std::array<char, 64> phase{};  // name of its wait if it waits, else of its work
  int64_t step = 0;              // 0: not in a step
  double waits_seconds = -1.0;   // how long it has waited for peers; negative: it works
};

/// A rank that others may be waiting for; rank -1: nobody.
struct Suspect {
  int32_t rank = -1;
  int32_t others = 0;           // number of other silent ranks
  double silent_seconds = 0.0;  // since its last heartbeat
  Activity last{};              // as of its last heartbeat
};

/// What rank 0 has learned from all heartbeats (heartbeat.h).
struct PeerNews {
  Suspect silent{};     // the rank that has been silent for longest
  Suspect working{};    // the lowest live rank that does not wait
  int32_t speaker = 0;  // the lowest rank that waits: it prints the message first
};

/// Ends this process when it waits too long for peers, since MPI reports no lost peer to survivors, NCCL has no timeout
/// for collectives, and mpirun does not see stopped ranks. A wait is too long
///   after the peer timeout   when a peer sends no heartbeat, for three seconds at least,
///   after its own deadline   even if all peers are alive.
/// Then one line on stderr says which rank waited where, and which rank has been missing since when. The process calls
/// _exit(6) without touching MPI, NCCL or the heap, and the launcher ends the other ranks. Without heartbeats only the
/// deadline applies. Time in which this process was stopped (SIGSTOP, a suspended job) does not count.
/// Thread: any; guards may overlap. Owns: one thread.
class Watchdog {
 public:
  Watchdog(int rank, const std::string& host);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  class Guard {
   public:
    Guard(Guard&& other) noexcept;
    Guard& operator=(Guard&&) = delete;
    ~Guard();

   private:
    friend class Watchdog;
    Guard(Watchdog& owner, int64_t id) : owner_(&owner), id_(id) {}
    Watchdog* owner_;
    int64_t id_;
  };

  /// Starts watching a wait, which must end (the guard be destroyed) within `deadline_seconds`. `phase` is cut to 63
  /// bytes.
  [[nodiscard]] Guard guard(const std::string& phase, int64_t step, double deadline_seconds);

  /// Sets how long a wait for a silent peer may last. Infinite until then.
  void set_peer_timeout(double seconds);

  /// Says that there are no peers, so that messages blame the device for a wait.
  void be_alone();
  /// Names what this rank does while it does not wait.
  void work_in(const std::string& phase);
  /// What this rank is doing now: its longest wait, or its work.
  Activity activity() const;
  /// Takes the latest news about peers.
  void hear(const PeerNews& news);
  /// Discards the news about peers: heartbeats have ended.
  void hear_no_more();

 private:
  struct State;
  void drop(int64_t id);
  std::unique_ptr<State> state_;
};

/// Copies as much of `text` as fits, NUL-terminated.
template <size_t N>
void copy_text(const std::string& text, std::array<char, N>& to) {
  to[text.copy(to.data(), N - 1)] = '\0';
}

}  // namespace neoloom::comm
