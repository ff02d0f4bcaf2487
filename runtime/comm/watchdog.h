// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace neoloom::comm {

/// Ends this process when a phase that waits for peers takes too long. MPI reports no lost peer to survivors, NCCL has
/// no collective timeout, and mpirun does not see stopped ranks: somebody must. On expiry it writes rank, host, phase
/// and step to stderr and calls _exit(6) without touching MPI, NCCL or the heap; the launcher then ends the others.
/// Time in which the whole process was stopped (SIGSTOP, a suspended job) does not count.
/// Thread: guards may be made and dropped on any thread, and may overlap. Owns: one thread.
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

  /// The phase must end (the guard be dropped) within `deadline_seconds`; the caller chooses them: long for start-up
  /// and the first step, short afterwards. `phase` is copied (at most 63 bytes).
  [[nodiscard]] Guard guard(const std::string& phase, int64_t step, double deadline_seconds);

 private:
  struct State;
  void drop(int64_t id);
  std::unique_ptr<State> state_;
};

}  // namespace neoloom::comm
