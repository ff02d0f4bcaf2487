// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

namespace neoloom::comm {

/// Whether the MPI library takes pointers to GPU memory; nullopt: it does not say. neoloom gives it host memory alone.
/// Call it while a session exists.
std::optional<bool> mpi_takes_device_memory();

}  // namespace neoloom::comm
