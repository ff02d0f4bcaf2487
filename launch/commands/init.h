// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launch/command_line.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// `neoloom init`. Guesses a first configuration from a data file, or takes it from the files of a Hugging Face script,
/// and writes it with reasons. Returns 0.
/// Throws: Error(kUsage) for an output file that exists; Error(kData) as data::sample_file and guess_roles;
/// Error(kOutput).
int run_init(comm::MpiSession& session, const InitArguments& arguments);

}  // namespace neoloom::launch
