// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace neoloom::core {

// Reads files under /proc and /sys. A missing file means "unknown", never an error. Not for signal handlers or forked
// children (see comm/stopped_ranks).

/// Returns the first line of a file; empty when the file is missing or empty.
std::string first_line(const std::string& path);

/// Returns TEXT of the first line "KEY: TEXT". nullopt: no such file or line.
std::optional<std::string> proc_text(const std::string& path, std::string_view key);

/// Returns the sum of N over the lines "KEY: N kB", in bytes; 0: no such file or line.
int64_t proc_bytes(const std::string& path, std::string_view key);

/// Fields of /proc/PID/stat.
struct ProcessStat {
  char state = '?';  // 'Z' and 'X': it has ended
  int64_t parent = 0;
  uint64_t start_ticks = 0;  // since boot, in units of sysconf(_SC_CLK_TCK)
};
/// nullopt: no such process.
std::optional<ProcessStat> process_stat(int64_t process);

}  // namespace neoloom::core
