// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launch/command_line.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// Call it before MPI_Init. Throws: Error(kUsage) in a Slurm step of several tasks without a launcher, whose tasks
/// would each be a world of one.
void require_one_world();

/// `neoloom train`. Returns 0, or core::kExitStopped when a stop signal ended the run with a checkpoint.
/// Collective: every rank.
int run_train(comm::MpiSession& session, const TrainArguments& arguments);

}  // namespace neoloom::launch
