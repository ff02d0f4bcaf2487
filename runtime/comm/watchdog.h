// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

namespace neoloom::comm {

/// What a rank is doing. Plain bytes: it travels between ranks.
struct Activity {
  std::array<char, 64> host{};   // empty: never heard of
  std::array<char, 64> phase{};  // of its wait, or else of its work
  int64_t step = 0;              // 0: not in a step
  double waits_seconds = -1.0;   // for its peers; negative: it works
};

/// A rank that others may be waiting for; rank -1: nobody.
struct Suspect {
  int32_t rank = -1;
  int32_t others = 0;           // as many more ranks give no sign of life
  double silent_seconds = 0.0;  // without a sign of life
  Activity last{};              // as of its last sign of life
};

/// What heartbeats tell (heartbeat.h).
struct PeerNews {
  Suspect silent{};     // the rank that has been silent for longest
  Suspect working{};    // the lowest rank that lives and does not wait
  int32_t speaker = 0;  // the lowest rank that waits: its message stands for all
};

/// Ends this process when it waits too long for peers. MPI reports no lost peer to survivors, NCCL has no collective
/// timeout, and mpirun does not see stopped ranks: somebody must. A wait is too long
///   after the peer timeout   when a peer gives no sign of life, for three seconds at least,
///   after its own deadline   even if all peers live.
/// Then one line on stderr says who waited where and which rank is missing since when, and the process calls _exit(6)
/// without touching MPI, NCCL or the heap; the launcher ends the others. Without heartbeats the deadline alone counts.
/// Time in which this process was stopped (SIGSTOP, a suspended job) does not count.
/// Thread: everything may be called on any thread; guards may overlap. Owns: one thread.
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

  /// The wait must end (the guard be dropped) within `deadline_seconds`. `phase` is copied (at most 63 bytes).
  [[nodiscard]] Guard guard(const std::string& phase, int64_t step, double deadline_seconds);

  /// How long a wait for a silent peer may last. Infinite at first.
  void set_peer_timeout(double seconds);

  /// There are no peers: what keeps this process waiting is its device.
  void be_alone();
  /// Names what this rank does while it does not wait.
  void work_in(const std::string& phase);
  /// What this rank is doing now: its longest wait, or its work.
  Activity activity() const;
  /// The newest word about peers.
  void hear(const PeerNews& news);
  /// There will be no more: what was heard is no longer true.
  void hear_no_more();

 private:
  struct State;
  void drop(int64_t id);
  std::unique_ptr<State> state_;
};

/// Copies what fits, with an end.
template <size_t N>
void copy_text(const std::string& text, std::array<char, N>& to) {
  to[text.copy(to.data(), N - 1)] = '\0';
}

}  // namespace neoloom::comm
