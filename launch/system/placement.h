// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/comm/mpi_session.h"
#include "runtime/core/environment.h"

namespace neoloom::launch {

/// Where this rank computes, and with how many threads.
struct Placement {
  std::string device;       // "cpu" | "cuda:N"
  int threads = 1;          // one number for the whole job; the caller gives it to at::set_num_threads
  std::string explanation;  // for the log
};

/// Gives each rank of a node a GPU of its own (device_option: auto | cpu | cuda) and counts threads: threads_option, or
/// for 0 the smallest share over all ranks of the cores that a node allows. Open MPI's own binding of ranks to single
/// cores is undone unless the user asked for a binding.
/// Collective: every rank. Throws: CollectiveError(kDevice) when a GPU is asked for and missing, or a node has more
/// ranks than GPUs; Error(kUsage) for an unknown option.
Placement place(comm::MpiSession& session, const std::string& device_option, int64_t threads_option);

// The decisions of place(), free of MPI, CUDA and the machine.

/// What one rank can see and use.
struct RankResources {
  std::string host;
  std::vector<int> cores;            // ids this rank may run on
  std::vector<std::string> gpu_ids;  // PCI ids in the order of its own numbering; empty: none
  bool user_bound = false;
};

/// The device number that `rank` takes: the first of its visible GPUs that no lower rank of the host took; -1: none is
/// left. GPUs are told apart by id, so that ranks which each see one different GPU all take their own 0.
int choose_gpu(const std::vector<RankResources>& ranks, int rank);

/// The smallest over ranks of min(own cores, cores of the host / ranks of the host), at least 1.
int shared_thread_count(const std::vector<RankResources>& ranks);

/// "0-3,8" -> {0, 1, 2, 3, 8}: the kernel's list format. Throws: Error(kInternal).
std::vector<int> parse_cpu_list(const std::string& text);

/// Whether the user chose a binding: Open MPI exports its own parameters to ranks only when somebody set them.
/// `lookup` stands for core::environment.
bool binding_chosen_by_user(std::string (*lookup)(core::Variable));

/// Whether Open MPI binds only those ranks for which somebody asks, as under cluster/local/mpirun.sh: a rank that is
/// bound all the same is bound as its user wants. `lookup` stands for core::environment.
bool default_binding_is_off(std::string (*lookup)(core::Variable));

}  // namespace neoloom::launch
