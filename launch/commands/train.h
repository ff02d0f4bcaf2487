// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launch/command_line.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// For before the world is made. Throws: Error(kUsage) in a Slurm step of several tasks without a launcher.
void require_one_world();

/// `neoloom train`. Returns 0, or core::kExitStopped when the run stopped on request with a checkpoint.
/// Collective: every rank.
int run_train(comm::MpiSession& session, const TrainArguments& arguments);

}  // namespace neoloom::launch
