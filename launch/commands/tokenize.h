// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launch/command_line.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// `neoloom tokenize`. Returns the exit code. Collective: every rank.
int run_tokenize(comm::MpiSession& session, const TokenizeArguments& arguments);

}  // namespace neoloom::launch
