// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

namespace neoloom::launch {

/// Fault injection for tests, from $NEOLOOM_FAULT: "KIND:rank=R:step=S[:rows=N]", KIND one of
///   kill   SIGKILL of this process before its first micro-batch of step S
///   oom    std::bad_alloc before micro-batches of at least N rows, from step S on
/// Rank -1 means every rank. Empty when the variable is not set.
/// Throws: Error(kUsage) for a text of another form.
std::function<void(int64_t step, int64_t rows)> fault_from_environment(int rank);

}  // namespace neoloom::launch
