// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// Prints versions, hosts, devices and transports, then runs the kernels of training on every device of every host and
/// compares them with float64 on the CPU, and an all-reduce over all ranks. `device`: auto | cpu | cuda.
/// Returns 0, or 8 when a device computes wrongly. Collective: every rank. Throws: see place().
int run_doctor(comm::MpiSession& session, const std::string& device);

}  // namespace neoloom::launch
