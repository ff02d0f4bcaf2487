// SPDX-License-Identifier: Apache-2.0
#include "launch/system/limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <filesystem>

#include "launch/system/disk.h"
#include "tests/support/scratch.h"

namespace neoloom::launch {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kMiB = uint64_t{1} << 20;

TEST(Limits, LockedMemoryWarnsOnlyWhereHardwareNeedsIt) {
  EXPECT_EQ(locked_memory_check(8 * kMiB, {}).health, Health::kOk);
  EXPECT_THAT(locked_memory_check(8 * kMiB, {}).text, HasSubstr("at most 8.0 MiB; nothing here needs it"));
  const Check gpu = locked_memory_check(8 * kMiB, {.gpu = true});
  EXPECT_EQ(gpu.health, Health::kWarn);
  EXPECT_THAT(gpu.text, HasSubstr("a GPU copies from locked memory"));
  EXPECT_THAT(gpu.remedy, HasSubstr("ulimit -l unlimited"));
  EXPECT_THAT(locked_memory_check(0, {.rdma = true}).text, HasSubstr("an RDMA adapter"));
  EXPECT_EQ(locked_memory_check(RLIM_INFINITY, {.gpu = true}).health, Health::kOk);
}

TEST(Limits, FindsGpusAndRdmaAdapters) {
  const ScratchFolder root;
  EXPECT_FALSE(pinning_hardware(root.path()).gpu || pinning_hardware(root.path()).rdma);
  std::filesystem::create_directories(root.path("sys/class/infiniband"));
  EXPECT_FALSE(pinning_hardware(root.path()).rdma) << "no adapter in it";
  std::filesystem::create_directories(root.path("sys/class/infiniband/mlx5_0"));
  std::filesystem::create_directories(root.path("dev/nvidia0"));
  EXPECT_TRUE(pinning_hardware(root.path()).rdma);
  EXPECT_TRUE(pinning_hardware(root.path()).gpu);
}

TEST(Limits, FewOpenFilesAndLittleSharedMemoryWarn) {
  EXPECT_EQ(open_files_check(1024).health, Health::kOk);
  EXPECT_EQ(open_files_check(1023).health, Health::kWarn);
  EXPECT_EQ(open_files_check(RLIM_INFINITY).text, "no limit");
  EXPECT_EQ(shared_memory_check(256 * kMiB, 256 * kMiB, 4).health, Health::kOk);
  const Check low = shared_memory_check(64 * kMiB, 63 * kMiB, 4);
  EXPECT_EQ(low.health, Health::kWarn);
  EXPECT_THAT(low.text, HasSubstr("63.0 MiB of 64.0 MiB free"));
  EXPECT_THAT(low.remedy, HasSubstr("--shm-size=256m"));
  EXPECT_THAT(shared_memory_check(0, 0, 1).text, HasSubstr("not there"));
}

TEST(Disk, LittleSpaceAndSlowDisksWarn) {
  EXPECT_EQ(disk_space_check(1024 * kMiB).health, Health::kOk);
  EXPECT_EQ(disk_space_check(1023 * kMiB).health, Health::kWarn);
  EXPECT_EQ(disk_speed_check({0.01, 100e6}).health, Health::kOk);
  EXPECT_EQ(disk_speed_check({0.5, 100e6}).health, Health::kWarn);
  EXPECT_EQ(disk_speed_check({0.01, 10e6}).health, Health::kWarn);
  EXPECT_EQ(disk_speed_check({0.0123, 104.4e6}).text,
            "4 KiB in 12.3 ms, 64 MB at 104 MB/s, both until they are on the disk");
}

TEST(Disk, IsMeasuredInTheNearestFolderThatExistsAndLeftAsItWas) {
  const ScratchFolder folder;
  const std::vector<Check> checks = disk_checks(folder.path("runs/not/yet"));
  ASSERT_EQ(checks.size(), 2U);
  EXPECT_THAT(checks[1].text, HasSubstr("MB/s"));
  EXPECT_THAT(folder.names(), IsEmpty());
}

TEST(Disk, AFolderThatCannotBeWrittenFailsWithoutItsName) {
  const std::vector<Check> checks = disk_checks("/proc/self/neoloom");
  EXPECT_EQ(checks.back().health, Health::kFail);
  EXPECT_THAT(checks.back().text, HasSubstr("cannot create a temporary file in the folder: "));
  EXPECT_THAT(checks.back().remedy, HasSubstr("--output_dir"));
}

}  // namespace
}  // namespace neoloom::launch
