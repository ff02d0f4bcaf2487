// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "runtime/core/error.h"

namespace neoloom::comm {

/// An error that every rank throws at the same place with the same text. No peer waits then: `main` prints it once (on
/// rank 0), calls MPI_Finalize and returns its exit code. With several ranks, any other core::Error belongs to one
/// rank: peers may be waiting in a collective, and only MpiSession::abort ends them.
class CollectiveError : public core::Error {
 public:
  using core::Error::Error;
};

}  // namespace neoloom::comm
