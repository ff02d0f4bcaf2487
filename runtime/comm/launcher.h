// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace neoloom::comm {

// Reads from the environment, before MPI_Init, who started this process. Under mpirun the SLURM_ variables describe its
// daemons, so they are read last.

/// Whether mpirun, or srun with a PMI plug-in, started this process as a rank: OMPI_COMM_WORLD_SIZE, PMIX_RANK or
/// PMI_RANK is set.
bool started_by_launcher();

/// Returns this process's rank by the launcher's variables, else by SLURM_PROCID in a Slurm step, else 0. For messages
/// before MPI_Init.
int rank_before_world();

/// Returns the number of tasks in this process's Slurm step; 1 outside of a step, as in a batch script.
int64_t slurm_step_tasks();

}  // namespace neoloom::comm
