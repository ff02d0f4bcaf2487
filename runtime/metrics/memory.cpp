// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/proc.h"
#include "runtime/metrics/events.h"

namespace neoloom::metrics {

int64_t peak_resident_bytes() { return core::proc_bytes("/proc/self/status", "VmHWM"); }

int64_t private_resident_bytes() {
  constexpr const char* kPath = "/proc/self/smaps_rollup";
  return core::proc_bytes(kPath, "Private_Clean") + core::proc_bytes(kPath, "Private_Dirty");
}

}  // namespace neoloom::metrics
