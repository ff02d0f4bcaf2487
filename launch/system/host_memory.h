// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace neoloom::launch {

/// Memory that this machine, or the control group of this process where that is tighter, still has to give: free, or
/// held by files that can be read again. Control groups of version 2, then 1; 0: the system does not say.
/// `root` stands before every path, for tests.
int64_t available_host_bytes(const std::string& root = "");

}  // namespace neoloom::launch
