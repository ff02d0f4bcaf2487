// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/proc.h"

#include <fmt/format.h>

#include <charconv>
#include <fstream>
#include <sstream>

namespace neoloom::core {
namespace {

/// Calls visit(text behind the colon) for every line that begins with `key`, until it returns false.
template <typename Visit>
void for_each_value(const std::string& path, std::string_view key, Visit visit) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find_first_not_of(" \t", key.size());  // "model name\t: ..."
    if (colon == std::string::npos || line[colon] != ':') continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    if (!visit(begin == std::string::npos ? std::string() : line.substr(begin))) return;
  }
}

}  // namespace

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::optional<std::string> proc_text(const std::string& path, std::string_view key) {
  std::optional<std::string> found;
  for_each_value(path, key, [&](const std::string& text) {
    found = text;
    return false;
  });
  return found;
}

int64_t proc_bytes(const std::string& path, std::string_view key) {
  constexpr int64_t kKibibyte = 1024;
  int64_t total = 0;
  for_each_value(path, key, [&](const std::string& text) {
    int64_t kibibytes = 0;
    std::from_chars(text.data(), text.data() + text.size(), kibibytes);
    total += kibibytes * kKibibyte;
    return true;
  });
  return total;
}

std::optional<ProcessStat> process_stat(int64_t process) {
  const std::string line = first_line(fmt::format("/proc/{}/stat", process));
  const size_t name_end = line.rfind(')');  // "PID (NAME) STATE PARENT ...", where NAME may hold a ')'
  if (name_end == std::string::npos) return std::nullopt;
  constexpr int kFieldsBetween = 17;  // from the parent, field 4, to the start time, field 22
  std::istringstream fields(line.substr(name_end + 1));
  ProcessStat stat;
  fields >> stat.state >> stat.parent;
  std::string skipped;
  for (int i = 0; i < kFieldsBetween; ++i) fields >> skipped;
  fields >> stat.start_ticks;
  return stat;
}

}  // namespace neoloom::core
