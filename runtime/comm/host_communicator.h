// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "runtime/comm/communicator.h"
#include "runtime/comm/watchdog.h"

namespace neoloom::comm {

/// Returns a Communicator over `*mpi_comm`, an MPI_Comm, which its destructor frees: destroy it before the session.
/// With one rank it may be MPI_COMM_NULL. `guard` watches each wait. Sums of int64 are exact, so their bits do not
/// depend on the number of ranks.
std::unique_ptr<Communicator> wrap_host_communicator(void* mpi_comm, int size, const std::string& library_version,
                                                     std::function<Watchdog::Guard()> guard);

}  // namespace neoloom::comm
