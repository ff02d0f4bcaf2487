// SPDX-License-Identifier: Apache-2.0
#include "launch/system/disk.h"

#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "launch/system/sizes.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/unnamed_file.h"

namespace neoloom::launch {
namespace {

namespace fs = std::filesystem;

constexpr size_t kSmallBytes = 4096;
constexpr size_t kStreamBytes = 64'000'000;
constexpr uint64_t kGiB = uint64_t{1} << 30;

// Writes a file without a name. Returns the seconds until it is on the disk.
double write_seconds(const std::string& folder, const std::string& content) {
  const core::UniqueFd file = core::unnamed_file(folder, core::ErrorKind::kOutput);
  const double start = core::now_seconds();
  int problem = core::write_fully(file.get(), content.data(), content.size());
  if (problem == 0 && ::fsync(file.get()) != 0) problem = errno;
  core::require(problem == 0, core::ErrorKind::kOutput, "cannot write {} there: {}", size_text(content.size()),
                std::strerror(problem));
  return core::now_seconds() - start;
}

DiskSpeed measure(const std::string& folder) {
  constexpr int kRepeats = 3;
  DiskSpeed speed{1e9, 0.0};
  for (int i = 0; i < kRepeats; ++i)
    speed.sync_seconds = std::min(speed.sync_seconds, write_seconds(folder, std::string(kSmallBytes, 'x')));
  speed.bytes_per_second = kStreamBytes / write_seconds(folder, std::string(kStreamBytes, 'x'));
  return speed;
}

std::string existing_parent(const std::string& folder) {
  std::error_code none;
  fs::path path = fs::path(folder.empty() ? "." : folder).lexically_normal();
  while (!fs::exists(path, none) && path.has_parent_path() && path != path.parent_path()) path = path.parent_path();
  return fs::exists(path, none) ? path.string() : ".";
}

}  // namespace

Check disk_space_check(uint64_t free_bytes) {
  Check check{"disk space", Health::kOk, fmt::format("{} free", size_text(free_bytes))};
  if (free_bytes < kGiB) {
    check.health = Health::kWarn;
    check.remedy = "free some: a run writes checkpoints, and never deletes the last two before it has a new one";
  }
  return check;
}

Check disk_speed_check(const DiskSpeed& speed) {
  constexpr double kSlowSyncSeconds = 0.25;
  constexpr double kSlowBytesPerSecond = 20e6;
  Check check{"disk speed", Health::kOk,
              fmt::format("4 KiB in {:.1f} ms, 64 MB at {:.0f} MB/s, both until they are on the disk",
                          speed.sync_seconds * 1e3, speed.bytes_per_second / 1e6)};
  if (speed.sync_seconds > kSlowSyncSeconds || speed.bytes_per_second < kSlowBytesPerSecond) {
    check.health = Health::kWarn;
    check.remedy =
        "training waits while it saves: choose a faster disk for trainer_config.output_dir, or larger save_steps";
  }
  return check;
}

std::vector<Check> disk_checks(const std::string& folder) {
  const std::string there = existing_parent(folder);
  std::vector<Check> checks;
  struct statvfs status {};
  if (::statvfs(there.c_str(), &status) == 0)
    checks.push_back(disk_space_check(uint64_t{status.f_bavail} * status.f_frsize));
  try {
    checks.push_back(disk_speed_check(measure(there)));
  } catch (const core::Error& error) {
    // Without the path, which may name a user.
    std::string text = error.what();
    if (const size_t at = text.find(there); at != std::string::npos) text.replace(at, there.size(), "the folder");
    checks.push_back({"disk speed", Health::kFail, text,
                      "give --output_dir (in a run, trainer_config.output_dir) a folder that you may write to"});
  }
  return checks;
}

}  // namespace neoloom::launch
