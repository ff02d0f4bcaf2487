// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace neoloom::comm {

/// Writes to `text` which ranks of this job on this host a signal has stopped, by /proc: "rank 1, 3", or "" when there
/// is none or it cannot be seen. Returns the length of the text. Serves MPI_Init and MPI_Finalize, when ranks cannot
/// exchange messages. Takes the siblings of this process for the ranks. Allocates no memory.
size_t stopped_ranks_here(char* text, size_t size);

}  // namespace neoloom::comm
