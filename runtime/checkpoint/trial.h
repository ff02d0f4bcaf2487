// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace neoloom::checkpoint {

/// Runs `work` in a process of its own, where a crash, a loop without end or a request for more memory than
/// `most_bytes` takes nothing along: HDF5's parser does all three on some damaged files. What `work` changes or throws
/// as core::Error is lost with that process. Returns: how the process failed ("ended by signal 11"); empty when `work`
/// came to its end. Throws: Error(kCheckpoint) when no process can be made.
std::string failure_in_trial(const std::function<void()>& work, uint64_t most_bytes);

}  // namespace neoloom::checkpoint
