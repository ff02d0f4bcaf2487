// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/system/check.h"

namespace neoloom::launch {

/// What writing into a folder costs.
struct DiskSpeed {
  double sync_seconds = 0.0;      // of a file of 4 KiB until it is on the disk
  double bytes_per_second = 0.0;  // of 64 MB until they are on the disk
};

Check disk_space_check(uint64_t free_bytes);
Check disk_speed_check(const DiskSpeed& speed);

/// Writes into `folder`, or into the nearest folder above it that exists, and leaves nothing there. Rank 0 writes a
/// run's files, so it alone asks.
std::vector<Check> disk_checks(const std::string& folder);

}  // namespace neoloom::launch
