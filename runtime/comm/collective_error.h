// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "runtime/core/error.h"

namespace neoloom::comm {

/// An error that every rank throws at the same place with the same text, so no peer waits: `main` prints it once (on
/// rank 0), finalizes and returns its exit code. Any other core::Error on a world of several ranks is one rank's own:
/// peers may be waiting in a collective, and only MpiSession::abort ends them.
class CollectiveError : public core::Error {
 public:
  using core::Error::Error;
};

}  // namespace neoloom::comm
