// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace neoloom::comm {

/// Names the ranks of this job on this host that a signal has stopped, as /proc shows them: "rank 1, 3", or "" when
/// there is none or it cannot be seen. For the times in which ranks cannot talk: MPI_Init and MPI_Finalize.
/// Takes no memory from the heap. Ranks are the children of what started this process. Returns the length of the text.
size_t stopped_ranks_here(char* text, size_t size);

}  // namespace neoloom::comm
