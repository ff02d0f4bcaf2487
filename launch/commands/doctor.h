// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launch/command_line.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// Prints versions, hosts, devices, transports and checks, as text or JSON. Runs the kernels of training on every
/// device of every host, compares them with references (see selftest/), and runs all-reduces over all ranks. Returns 0,
/// or 8 when a device computes wrongly or a check fails. Collective: every rank. Throws: see assign_devices().
int run_doctor(comm::MpiSession& session, const DoctorArguments& arguments);

}  // namespace neoloom::launch
