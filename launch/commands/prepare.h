// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launch/command_line.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// `neoloom prepare`: puts into the caches what a job with this configuration reads: the model, the token stores and
/// the converted weights. Trains nothing, writes no run folder and needs no GPU. Returns 0. Collective: every rank.
int run_prepare(comm::MpiSession& session, const PrepareArguments& arguments);

}  // namespace neoloom::launch
