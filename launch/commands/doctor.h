// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// Prints versions, hosts, devices and transports. Runs the kernels of training on every device of every host, compares
/// them with references (see selftest/), and runs an all-reduce over all ranks. `device`: auto | cpu | cuda.
/// Returns 0, or 8 when a device computes wrongly. Collective: every rank. Throws: see assign_devices().
int run_doctor(comm::MpiSession& session, const std::string& device);

}  // namespace neoloom::launch
