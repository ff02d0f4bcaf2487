// SPDX-License-Identifier: Apache-2.0
#include "launch/system/host_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string_view>

#include "runtime/core/proc.h"

namespace neoloom::launch {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

/// Returns the number after `key` in a file of "key number" lines; nullopt without such a file or line.
std::optional<int64_t> entry(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    int64_t value = 0;
    if (words >> name >> value && name == key) return value;
  }
  return std::nullopt;
}

/// Returns the only number of a file; nullopt without such a file, or when it says "max".
std::optional<int64_t> number(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? std::optional(value) : std::nullopt;
}

struct GroupFiles {
  const char* limit;
  const char* used;
  // These count pages of files, which the kernel takes back before it refuses memory.
  const char* inactive_files;
  const char* active_files;
};
constexpr GroupFiles kVersion2 = {"/memory.max", "/memory.current", "inactive_file", "active_file"};
constexpr GroupFiles kVersion1 = {"/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file",
                                  "total_active_file"};

int64_t left_in_group(const std::string& folder, const GroupFiles& files) {
  const std::optional<int64_t> limit = number(folder + files.limit);
  const std::optional<int64_t> used = number(folder + files.used);
  if (!limit || !used) return kUnlimited;
  const std::string statistics = folder + "/memory.stat";
  const int64_t reclaimable =
      entry(statistics, files.inactive_files).value_or(0) + entry(statistics, files.active_files).value_or(0);
  return std::max<int64_t>(0, *limit - std::max<int64_t>(0, *used - reclaimable));
}

/// Returns the least that is left in a group and in the groups around it. In a container the path may lie outside of
/// what is mounted: then only the mount's root can be seen.
int64_t left_up_the_tree(const std::string& mount, std::string path, const GroupFiles& files) {
  int64_t left = left_in_group(mount, files);
  while (path.size() > 1) {
    left = std::min(left, left_in_group(mount + path, files));
    path.erase(path.rfind('/'));
  }
  return left;
}

int64_t left_in_groups(const std::string& root) {
  std::ifstream groups(root + "/proc/self/cgroup");
  int64_t left = kUnlimited;
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      left = std::min(left, left_up_the_tree(root + "/sys/fs/cgroup", path, kVersion2));
    } else if (("," + controllers + ",").find(",memory,") != std::string::npos) {
      left = std::min(left, left_up_the_tree(root + "/sys/fs/cgroup/memory", path, kVersion1));
    }
  }
  return left;
}

}  // namespace

int64_t available_host_bytes(const std::string& root) {
  const int64_t machine = core::proc_bytes(root + "/proc/meminfo", "MemAvailable");
  return std::min(machine, left_in_groups(root));
}

}  // namespace neoloom::launch
