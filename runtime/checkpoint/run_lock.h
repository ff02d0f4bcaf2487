// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

namespace neoloom::checkpoint {

/// Holds a run folder for one training job: `run.lock` in it names host, process, boot, Slurm job, and a count that a
/// thread raises every few seconds as a sign of life. The lock ends with its holder:
///   same kernel and process namespace  the process is looked up: a dead holder's lock is taken over at once
///   elsewhere                          a lock whose count stands still for Options::stale_seconds is taken over
///   same Slurm job, restarted since    taken over at once: the copy that Slurm gave up may still run
/// A holder whose lock was taken over learns it at its next sign of life, and ends.
/// Only rank 0 holds one; readers (evaluate, predict, export) take none. Owns: one thread, the file.
class RunLock {
 public:
  struct Options {
    double heartbeat_seconds = 5.0;
    double stale_seconds = 60.0;
    std::string slurm_job;                            // SLURM_JOB_ID; empty outside of Slurm
    int slurm_restarts = 0;                           // SLURM_RESTART_COUNT
    std::function<void(const std::string&)> say;      // one line, before a wait and at a take-over; may be empty
    std::function<void(const std::string&)> on_lost;  // on the lock's thread; empty: says why and ends the process
  };

  /// Makes the folder if need be, and takes the lock; waits up to stale_seconds where only time tells.
  /// Throws: Error(kUsage) when a living job holds it, or when the folder's name is empty, a file, or a dangling link.
  RunLock(const std::string& folder, Options options);
  /// Ends the thread, removes the file, and the folder too if it was made here and is still empty.
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Throws: Error(kUsage) unless `folder` is a folder or can become one: empty name, file, dangling link.
void require_usable_folder(const std::string& folder);

}  // namespace neoloom::checkpoint
