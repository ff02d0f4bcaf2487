// SPDX-License-Identifier: Apache-2.0
#include "launch/system/host_memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace neoloom::launch {
namespace {

namespace fs = std::filesystem;

/// Makes a system of a few files.
class HostMemory : public ::testing::Test {
 protected:
  HostMemory() {
    std::string pattern = fs::temp_directory_path() / "neoloom-host-memory-XXXXXX";
    root_ = ::mkdtemp(pattern.data());
    write("/proc/meminfo", "MemTotal: 9000 kB\nMemFree: 100 kB\nMemAvailable: 8000 kB\n");
  }
  ~HostMemory() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  int64_t available() const { return available_host_bytes(root_); }

  std::string root_;
};

TEST_F(HostMemory, WithoutControlGroupsIsWhatTheMachineHasAvailable) { EXPECT_EQ(available(), 8000 * 1024); }

TEST_F(HostMemory, UnlimitedGroupsLimitNothing) {
  write("/proc/self/cgroup", "0::/job\n");
  write("/sys/fs/cgroup/job/memory.max", "max\n");
  write("/sys/fs/cgroup/job/memory.current", "1000\n");
  EXPECT_EQ(available(), 8000 * 1024);
}

TEST_F(HostMemory, PagesOfFilesCanBeTakenBack) {
  write("/proc/self/cgroup", "0::/job/step\n");
  write("/sys/fs/cgroup/job/step/memory.max", "1000000\n");
  write("/sys/fs/cgroup/job/step/memory.current", "700000\n");
  write("/sys/fs/cgroup/job/step/memory.stat", "anon 400000\ninactive_file 200000\nactive_file 100000\n");
  EXPECT_EQ(available(), 600000);
}

TEST_F(HostMemory, TheTightestGroupAboveDecides) {
  write("/proc/self/cgroup", "0::/job/step\n");
  write("/sys/fs/cgroup/job/step/memory.max", "1000000\n");
  write("/sys/fs/cgroup/job/step/memory.current", "0\n");
  write("/sys/fs/cgroup/job/memory.max", "500000\n");
  write("/sys/fs/cgroup/job/memory.current", "450000\n");
  EXPECT_EQ(available(), 50000);
}

TEST_F(HostMemory, InAContainerTheMountsRootIsTheGroup) {
  write("/proc/self/cgroup", "0::/\n");
  write("/sys/fs/cgroup/memory.max", "300000\n");
  write("/sys/fs/cgroup/memory.current", "100000\n");
  EXPECT_EQ(available(), 200000);
}

TEST_F(HostMemory, GroupsOfVersion1AreRead) {
  write("/proc/self/cgroup", "5:cpu,cpuacct:/job\n4:memory:/job\n");
  write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1000000\n");
  write("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "900000\n");
  write("/sys/fs/cgroup/memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 300000\ntotal_active_file 0\n");
  EXPECT_EQ(available(), 400000);
}

TEST_F(HostMemory, AGroupThatIsOverItsLimitHasNothingLeft) {
  write("/proc/self/cgroup", "0::/\n");
  write("/sys/fs/cgroup/memory.max", "300000\n");
  write("/sys/fs/cgroup/memory.current", "310000\n");
  EXPECT_EQ(available(), 0);
}

}  // namespace
}  // namespace neoloom::launch
