// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/system/check.h"

namespace neoloom::launch {

/// What this machine has that locks memory.
struct PinningHardware {
  bool gpu = false;
  bool rdma = false;
};
/// `root` is prepended to every path, for tests.
PinningHardware pinning_hardware(const std::string& root = "");

// What a limit means for training; the limits as getrlimit() and statvfs() have them.
Check locked_memory_check(uint64_t limit_bytes, const PinningHardware& hardware);
Check open_files_check(uint64_t limit);
/// `size_bytes` 0: there is no /dev/shm.
Check shared_memory_check(uint64_t size_bytes, uint64_t free_bytes, int ranks_of_host);

/// The limits of this process: locked memory, open files, /dev/shm.
std::vector<Check> limit_checks(int ranks_of_host);

}  // namespace neoloom::launch
