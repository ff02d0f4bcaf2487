// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace neoloom::core {

// The files under /proc and /sys. A file that is missing reads as empty: the answer is then "unknown", never an error.
// Not for signal handlers or forked children (see comm/stopped_ranks).

/// Empty when the file is missing or empty.
std::string first_line(const std::string& path);

/// The text behind the colon of the first line "KEY: TEXT". nullopt: no such file or line.
std::optional<std::string> proc_text(const std::string& path, std::string_view key);

/// The sum of the lines "KEY: N kB", in bytes; 0: no such file or line.
int64_t proc_bytes(const std::string& path, std::string_view key);

/// What /proc/PID/stat says of a process.
struct ProcessStat {
  char state = '?';  // 'Z' and 'X': only its remains
  int64_t parent = 0;
  uint64_t start_ticks = 0;  // since boot, in units of sysconf(_SC_CLK_TCK)
};
/// nullopt: no such process.
std::optional<ProcessStat> process_stat(int64_t process);

}  // namespace neoloom::core
