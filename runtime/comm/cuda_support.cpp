// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/cuda_support.h"

#include <mpi.h>
#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

#include "runtime/comm/launcher.h"

namespace neoloom::comm {

std::optional<bool> mpi_takes_device_memory() {
#ifdef MPIX_CUDA_AWARE_SUPPORT
  if (started_by_launcher()) return MPIX_Query_cuda_support() == 1;
#endif
  return std::nullopt;
}

}  // namespace neoloom::comm
