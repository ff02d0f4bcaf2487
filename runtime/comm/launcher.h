// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace neoloom::comm {

// What the environment says of who started this process, before MPI is asked. Under mpirun the SLURM_ variables
// describe its daemons, so that they are looked at last.

/// Whether mpirun, or srun with a PMI plug-in, started this process as a rank: OMPI_COMM_WORLD_SIZE, PMIX_RANK or
/// PMI_RANK is set.
bool started_by_launcher();

/// The launcher's number of this rank; without a launcher Slurm's number of the task in its step, else 0. For messages
/// before the world is made.
int rank_before_world();

/// Tasks of the Slurm step that this process is one of; 1 outside of a step, as in a batch script.
int64_t slurm_step_tasks();

}  // namespace neoloom::comm
