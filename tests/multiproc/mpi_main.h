// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "runtime/comm/mpi_session.h"

namespace neoloom::multiproc {

/// The session that mpi_main.cpp's main() owns, for the tests of one program.
comm::MpiSession& session();

}  // namespace neoloom::multiproc
