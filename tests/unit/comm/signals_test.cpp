// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/signals.h"

#include <gtest/gtest.h>

#include <atomic>
#include <csignal>

#include "runtime/core/error.h"

namespace neoloom::comm {
namespace {

std::atomic<int> seen_by_previous_handler{0};
void previous_handler(int) { ++seen_by_previous_handler; }

class StopSignalTest : public testing::TestWithParam<int> {};

TEST_P(StopSignalTest, SetsTheFlagAndTheProcessLivesOn) {
  StopSignal stop;
  EXPECT_FALSE(stop.requested());
  raise(GetParam());
  EXPECT_TRUE(stop.requested());
  EXPECT_EQ(stop.signal_number(), GetParam());
}
INSTANTIATE_TEST_SUITE_P(EachSignal, StopSignalTest, testing::Values(SIGUSR1, SIGUSR2, SIGTERM, SIGINT, SIGHUP));

TEST(StopSignal, StormIsOneRequest) {
  StopSignal stop;
  raise(SIGUSR2);
  for (int i = 0; i < 1000; ++i) raise(SIGUSR1);
  EXPECT_EQ(stop.signal_number(), SIGUSR2);
}

TEST(StopSignal, AHangUpThatNohupIgnoresStaysIgnored) {
  ASSERT_NE(std::signal(SIGHUP, SIG_IGN), SIG_ERR);
  {
    StopSignal stop;
    raise(SIGHUP);
    EXPECT_FALSE(stop.requested());
  }
  std::signal(SIGHUP, SIG_DFL);
}

TEST(StopSignal, RestoresTheHandlersItFound) {
  ASSERT_NE(std::signal(SIGUSR1, previous_handler), SIG_ERR);
  {
    StopSignal stop;
    raise(SIGUSR1);
    EXPECT_EQ(seen_by_previous_handler, 0);
  }
  raise(SIGUSR1);
  EXPECT_EQ(seen_by_previous_handler, 1);
  std::signal(SIGUSR1, SIG_DFL);
}

TEST(StopSignal, ANewObjectStartsWithoutARequest) {
  {
    StopSignal stop;
    raise(SIGUSR1);
  }
  EXPECT_FALSE(StopSignal().requested());
}

TEST(StopSignal, RefusesASecondOwner) {
  StopSignal stop;
  EXPECT_THROW(StopSignal(), core::Error);
}

}  // namespace
}  // namespace neoloom::comm
