// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launch/command_line.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// `neoloom predict`. Returns the exit code. Collective: every rank.
int run_predict(comm::MpiSession& session, const PredictArguments& arguments);

}  // namespace neoloom::launch
