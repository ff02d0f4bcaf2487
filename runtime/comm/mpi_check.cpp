// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/mpi_check.h"

#include <mpi.h>

#include "runtime/core/error.h"

namespace neoloom::comm {

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "unknown MPI error";
  int length = 0;
  MPI_Error_string(code, text, &length);
  core::fail(core::ErrorKind::kPeer,
             "{} failed: {}. A peer or the network is gone: "
             "start the job again, and it resumes from its newest checkpoint",
             call, text);
}

}  // namespace neoloom::comm
