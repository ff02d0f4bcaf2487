// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

namespace neoloom::checkpoint {

/// Locks a run folder for one training job. `run.lock` in it names host, process, boot and Slurm job, and holds a
/// counter that a thread increments every few seconds as a heartbeat. The lock of a dead holder is taken over:
///   same kernel and PID namespace      at once, when the holder's process has ended
///   elsewhere                          when the counter has not changed for Options::stale_seconds
///   same Slurm job, restarted since    at once, even if the process that Slurm gave up still runs
/// A holder whose lock was taken over notices at its next heartbeat and ends.
/// Only rank 0 holds one; readers (evaluate, predict, export) take none. Owns: one thread, the file.
class RunLock {
 public:
  struct Options {
    double heartbeat_seconds = 5.0;
    double stale_seconds = 60.0;
    std::string slurm_job;                            // SLURM_JOB_ID; empty outside of Slurm
    int slurm_restarts = 0;                           // SLURM_RESTART_COUNT
    std::function<void(const std::string&)> say;      // gets one line before a wait and at a takeover; may be empty
    std::function<void(const std::string&)> on_lost;  // on the lock's thread; empty: says why and ends the process
  };

  /// Creates the folder if needed, and takes the lock. Waits up to stale_seconds where only the counter can tell
  /// whether the holder is alive.
  /// Throws: Error(kUsage) when a living job holds it, or when the folder's name is empty, a file, or a dangling link.
  RunLock(const std::string& folder, Options options);
  /// Ends the thread and removes the file. Removes the folder too if the constructor created it and it is still empty.
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Who holds a run folder, as somebody sees it who does not take the lock.
struct LockReport {
  std::string holder;  // "process 123 on node1, since 2026-11-28 12:00:00"; empty: nobody
  bool lives = false;  // false beside a holder: it ended without removing the file
  /// What changes with each heartbeat, where only that can tell whether the holder lives; else "".
  std::string heartbeat = {};
};

/// Reads run.lock. Watches the heartbeat for up to `watch_seconds` where only that can tell whether the holder lives,
/// which is on another host or in another PID namespace.
LockReport look_at_lock(const std::string& folder, double watch_seconds);

}  // namespace neoloom::checkpoint
