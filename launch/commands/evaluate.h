// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launch/command_line.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// `neoloom evaluate`. Returns the exit code. Collective: every rank.
int run_evaluate(comm::MpiSession& session, const EvaluateArguments& arguments);

}  // namespace neoloom::launch
