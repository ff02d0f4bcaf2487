// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>

namespace neoloom::comm {

/// Throws: Error(kPeer) with the call's text and MPI_Error_string, unless `code` is MPI_SUCCESS.
void check_mpi(int code, const char* call);

/// MPI counts are int: larger buffers travel in pieces of at most this many elements.
inline constexpr size_t kMaxElementsPerCall = size_t{1} << 30;

/// Calls visit(first, count) for consecutive pieces of [0, n), none larger than `limit`.
template <typename Visit>
void for_each_piece(size_t n, size_t limit, Visit&& visit) {
  for (size_t first = 0; first < n; first += limit) visit(first, std::min(limit, n - first));
}

}  // namespace neoloom::comm

#define NL_MPI_CHECK(call) ::neoloom::comm::check_mpi((call), #call)
