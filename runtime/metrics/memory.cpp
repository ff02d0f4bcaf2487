// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <fstream>
#include <string>
#include <string_view>

#include "runtime/metrics/events.h"

namespace neoloom::metrics {
namespace {

// Sum of the "<key>:   <n> kB" lines of a /proc file, in bytes; 0 where the system has no such file.
int64_t proc_bytes(const char* path, std::string_view key_start) {
  std::ifstream file(path);
  int64_t total = 0;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key_start)) continue;
    const size_t digits = line.find_first_of("0123456789", line.find(':'));
    int64_t kilobytes = 0;
    if (digits == std::string::npos) continue;
    std::from_chars(line.data() + digits, line.data() + line.size(), kilobytes);
    total += kilobytes * 1024;
  }
  return total;
}

}  // namespace

int64_t peak_resident_bytes() { return proc_bytes("/proc/self/status", "VmHWM:"); }

int64_t private_resident_bytes() {
  constexpr const char* kPath = "/proc/self/smaps_rollup";
  return proc_bytes(kPath, "Private_Clean:") + proc_bytes(kPath, "Private_Dirty:");
}

}  // namespace neoloom::metrics
