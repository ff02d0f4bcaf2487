// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "runtime/comm/communicator.h"
#include "runtime/comm/watchdog.h"

namespace neoloom::comm {

/// A Communicator over `*mpi_comm` (an MPI_Comm, kept out of this header), which it frees in its destructor: it must
/// end before the session does. With one rank it may be MPI_COMM_NULL. `guard` watches each wait. Sums of int64 are
/// exact and the same for any number of ranks.
std::unique_ptr<Communicator> wrap_host_communicator(void* mpi_comm, int size, const std::string& library_version,
                                                     std::function<Watchdog::Guard()> guard);

}  // namespace neoloom::comm
