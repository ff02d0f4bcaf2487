// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launch/command_line.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// `neoloom download`. Returns the exit code. Collective: every rank.
int run_download(comm::MpiSession& session, const DownloadArguments& arguments);

}  // namespace neoloom::launch
