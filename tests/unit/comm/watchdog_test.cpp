// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/watchdog.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "runtime/core/clock.h"

namespace neoloom::comm {
namespace {

void sleep_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

class WatchdogDeathTest : public testing::Test {
 protected:
  // Children start afresh, as the parent may have threads.
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(WatchdogDeathTest, PhaseBeyondItsDeadlineEndsTheProcessWithCodeSixAndNamesEverything) {
  EXPECT_EXIT(
      {
        Watchdog watchdog(3, "node7");
        const auto guard = watchdog.guard("all-reduce", 41, 0.2);
        sleep_seconds(20);
      },
      testing::ExitedWithCode(6), "rank 3 on node7 waited more than 0.2 s in 'all-reduce' at step 41");
}

TEST_F(WatchdogDeathTest, EarlierOfTwoOverlappingPhasesCounts) {
  EXPECT_EXIT(
      {
        Watchdog watchdog(0, "node1");
        const auto run = watchdog.guard("run", 1, 600);
        const auto inner = watchdog.guard("save", 2, 0.2);
        sleep_seconds(20);
      },
      testing::ExitedWithCode(6), "'save' at step 2");
}

TEST(Watchdog, PhasesThatEndInTimeAreNotCounted) {
  Watchdog watchdog(0, "node1");
  const double start = core::now_seconds();
  while (core::now_seconds() - start < 0.6) {
    const auto guard = watchdog.guard("step", 1, 0.3);
    sleep_seconds(0.02);
  }
  sleep_seconds(0.5);  // and none at all may last
}

TEST(Watchdog, MovedGuardStillEndsItsPhase) {
  Watchdog watchdog(0, "node1");
  {
    auto first = watchdog.guard("step", 1, 0.2);
    const auto second = std::move(first);
  }
  sleep_seconds(0.6);
}

TEST(Watchdog, TimeInWhichTheWholeProcessWasStoppedDoesNotCount) {
  const pid_t child = fork();
  if (child == 0) {
    Watchdog watchdog(0, "node1");
    const auto guard = watchdog.guard("step", 1, 1.0);
    sleep_seconds(0.2);  // the watching thread is in the middle of a tick when everything stops
    raise(SIGSTOP);
    sleep_seconds(0.2);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, WUNTRACED), child);
  ASSERT_TRUE(WIFSTOPPED(status));
  sleep_seconds(1.6);
  kill(child, SIGCONT);
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(Watchdog, EndsAtOnceWhenNothingIsWatched) {
  const double start = core::now_seconds();
  { Watchdog watchdog(0, "node1"); }
  EXPECT_LT(core::now_seconds() - start, 1.0);
}

}  // namespace
}  // namespace neoloom::comm
