// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launch/command_line.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// `neoloom generate`. Returns the exit code. Collective: every rank.
int run_generate(comm::MpiSession& session, const GenerateArguments& arguments);

}  // namespace neoloom::launch
