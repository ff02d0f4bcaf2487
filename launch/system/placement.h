// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/comm/mpi_session.h"
#include "runtime/core/environment.h"

namespace neoloom::launch {

/// The device and the number of threads of this rank.
struct Placement {
  std::string device;       // "cpu" | "cuda:N"
  int threads = 1;          // one number for the whole job; the caller gives it to at::set_num_threads
  std::string explanation;  // for the log
};

/// Assigns each rank of a node its own GPU (device_option: auto | cpu | cuda). Sets threads to threads_option, or for 0
/// to the smallest shared_thread_count over all nodes. Undoes Open MPI's default binding of ranks to single cores,
/// unless the user chose a binding.
/// Collective: every rank. Throws: CollectiveError(kDevice) when a GPU is asked for and missing, or a node has more
/// ranks than GPUs; Error(kUsage) for an unknown option.
Placement assign_devices(comm::MpiSession& session, const std::string& device_option, int64_t threads_option);

// The decisions of assign_devices(), without calls to MPI, CUDA or the system.

/// What one rank can see and use.
struct RankResources {
  std::string host;
  std::vector<int> cores;            // ids this rank may run on
  std::vector<std::string> gpu_ids;  // PCI ids in the order of its device indices; empty: none
  bool user_bound = false;
};

/// Returns the device index for `rank`: the first of its visible GPUs that no lower rank of the host took; -1: none is
/// left. GPUs are identified by PCI id, so ranks that each see a different GPU all get index 0.
int choose_gpu(const std::vector<RankResources>& ranks, int rank);

/// Returns the smallest over ranks of min(own cores, cores of the host / ranks of the host), at least 1.
int shared_thread_count(const std::vector<RankResources>& ranks);

/// Whether the user chose a binding. Open MPI exports its binding parameters to ranks only when they were set. `lookup`
/// replaces core::environment in tests.
bool binding_chosen_by_user(std::string (*lookup)(core::Variable));

/// Whether Open MPI's default binding is off, as under cluster/local/mpirun.sh. A rank that is bound nevertheless was
/// bound by the user. `lookup` replaces core::environment in tests.
bool default_binding_is_off(std::string (*lookup)(core::Variable));

}  // namespace neoloom::launch
