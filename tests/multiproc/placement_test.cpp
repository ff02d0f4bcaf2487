// SPDX-License-Identifier: Apache-2.0
#include "launch/system/placement.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

#include "runtime/comm/collective_error.h"
#include "runtime/cuda/plugin.h"
#include "tests/multiproc/mpi_main.h"

namespace neoloom::multiproc {
namespace {

TEST(Placement, AllRanksGetOneThreadCountThatFitsTheHost) {
  const launch::Placement placement = launch::assign_devices(session(), "cpu", 0);
  EXPECT_EQ(placement.device, "cpu");
  EXPECT_GE(placement.threads, 1);
  std::vector<int64_t> extremes{placement.threads, -placement.threads};
  session().all_reduce_max(extremes);
  EXPECT_EQ(extremes[0], -extremes[1]);
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  EXPECT_LE(placement.threads, std::max(1, cores / session().size()));
}

TEST(Placement, ConfiguredThreadsAreTakenAsTheyAre) {
  EXPECT_EQ(launch::assign_devices(session(), "cpu", 7).threads, 7);
}

TEST(Placement, UnknownDeviceIsAUsageError) {
  try {
    launch::assign_devices(session(), "tpu", 0);
    FAIL() << "no error";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.exit_code(), 2);
  }
}

TEST(Placement, AskingForAGpuWhereThereIsNoneIsCodeEightOnEveryRank) {
  if (cuda::gpu_present()) GTEST_SKIP() << "this machine has a GPU";
  try {
    launch::assign_devices(session(), "cuda", 0);
    FAIL() << "no error";
  } catch (const comm::CollectiveError& error) {
    EXPECT_EQ(error.exit_code(), 8);
  }
}

}  // namespace
}  // namespace neoloom::multiproc
