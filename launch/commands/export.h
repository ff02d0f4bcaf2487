// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launch/command_line.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// `neoloom export`. Returns the exit code. Collective: every rank.
int run_export(comm::MpiSession& session, const ExportArguments& arguments);

}  // namespace neoloom::launch
