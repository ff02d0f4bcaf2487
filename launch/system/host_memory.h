// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace neoloom::launch {

/// Returns the memory that this process can still allocate: free memory and reclaimable page cache of this machine, or
/// of the process's cgroup (v2, else v1) if that is less. 0: not known. `root` is prepended to every path, for tests.
int64_t available_host_bytes(const std::string& root = "");

}  // namespace neoloom::launch
