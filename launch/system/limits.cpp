// SPDX-License-Identifier: Apache-2.0
#include "launch/system/limits.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

#include <filesystem>

#include "launch/system/sizes.h"

namespace neoloom::launch {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kNoLimit = RLIM_INFINITY;

uint64_t soft_limit(decltype(RLIMIT_NOFILE) resource) {
  rlimit limit{};
  return ::getrlimit(resource, &limit) == 0 ? limit.rlim_cur : kNoLimit;
}

}  // namespace

PinningHardware pinning_hardware(const std::string& root) {
  std::error_code none;
  PinningHardware hardware;
  hardware.gpu = fs::exists(root + "/dev/nvidiactl", none) || fs::exists(root + "/dev/nvidia0", none);
  const fs::directory_iterator adapters(root + "/sys/class/infiniband", none);
  hardware.rdma = !none && adapters != fs::directory_iterator();
  return hardware;
}

Check locked_memory_check(uint64_t limit_bytes, const PinningHardware& hardware) {
  Check check{"locked memory", Health::kOk, limit_bytes == kNoLimit ? "no limit" : "at most " + size_text(limit_bytes)};
  if (!hardware.gpu && !hardware.rdma) {
    if (limit_bytes != kNoLimit) check.text += "; nothing here needs it: no GPU, no RDMA adapter";
  } else if (limit_bytes != kNoLimit) {
    check.health = Health::kWarn;
    check.text += fmt::format(", and {} copies from locked memory", hardware.rdma ? "an RDMA adapter" : "a GPU");
    check.remedy = "ulimit -l unlimited; under Slurm, LimitMEMLOCK=infinity in slurmd's unit";
  }
  return check;
}

Check open_files_check(uint64_t limit) {
  constexpr uint64_t kEnough = 1024;
  if (limit == kNoLimit) return {"open files", Health::kOk, "no limit"};
  Check check{"open files", Health::kOk, fmt::format("at most {}", limit)};
  if (limit < kEnough) {
    check.health = Health::kWarn;
    check.text += ", which connections to many ranks may exceed";
    check.remedy = fmt::format("ulimit -n {} or more", 4 * kEnough);
  }
  return check;
}

Check shared_memory_check(uint64_t size_bytes, uint64_t free_bytes, int ranks_of_host) {
  constexpr uint64_t kBytesPerRank = uint64_t{64} << 20;
  const uint64_t wanted = kBytesPerRank * static_cast<uint64_t>(ranks_of_host);
  Check check{"/dev/shm", Health::kOk, "free for the ranks of this host"};
  if (size_bytes == 0) {
    check.text = "not there";
  } else if (free_bytes < wanted) {
    check.text = fmt::format("{} of {} free", size_text(free_bytes), size_text(size_bytes));
  } else {
    check.text =
        fmt::format("{}, with room for {} rank{}", size_text(size_bytes), ranks_of_host, ranks_of_host == 1 ? "" : "s");
    return check;
  }
  check.health = Health::kWarn;
  check.text += "; ranks of one host, and NCCL, exchange data there";
  check.remedy = fmt::format("free or mount {} there; of a container, --shm-size={}m or --ipc=host", size_text(wanted),
                             wanted >> 20);
  return check;
}

std::vector<Check> limit_checks(int ranks_of_host) {
  struct statvfs memory {};
  const bool there = ::statvfs("/dev/shm", &memory) == 0;
  const auto bytes = [&](fsblkcnt_t blocks) { return there ? uint64_t{blocks} * memory.f_frsize : 0; };
  return {locked_memory_check(soft_limit(RLIMIT_MEMLOCK), pinning_hardware()),
          open_files_check(soft_limit(RLIMIT_NOFILE)),
          shared_memory_check(bytes(memory.f_blocks), bytes(memory.f_bavail), ranks_of_host)};
}

}  // namespace neoloom::launch
