// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace neoloom::checkpoint {

/// Runs `work` in a child process, which contains a crash, an endless loop or a request for more memory than
/// `most_bytes`: HDF5's parser does all three on some damaged files. What `work` changes, and a core::Error that it
/// throws, stay in the child. Returns: how the process failed ("ended by signal 11"); empty when `work` returned.
/// Throws: Error(kCheckpoint) when the child cannot be created.
std::string failure_in_trial(const std::function<void()>& work, uint64_t most_bytes);

}  // namespace neoloom::checkpoint
