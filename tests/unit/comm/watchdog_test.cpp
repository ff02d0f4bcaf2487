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
  // Runs the program anew for each death test, because the parent may have threads.
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

TEST_F(WatchdogDeathTest, WorldOfOneSaysThatItsDeviceHangs) {
  EXPECT_EXIT(
      {
        Watchdog watchdog(0, "node1");
        watchdog.be_alone();
        const auto guard = watchdog.guard("waiting for the device", 3, 0.2);
        sleep_seconds(20);
      },
      testing::ExitedWithCode(6), "'waiting for the device' at step 3: the device hangs");
}

PeerNews news_of_silent_rank(double seconds, const std::string& host) {
  PeerNews news;
  news.silent.rank = 5;
  news.silent.silent_seconds = seconds;
  copy_text(host, news.silent.last.host);
  copy_text("evaluation", news.silent.last.phase);
  return news;
}

TEST_F(WatchdogDeathTest, SilentPeerEndsTheWaitAfterThePeerTimeoutAndIsNamedWithWhatItDidLast) {
  EXPECT_EXIT(
      {
        Watchdog watchdog(0, "node1");
        watchdog.set_peer_timeout(0.3);
        const auto guard = watchdog.guard("evaluation", 0, 600);
        watchdog.hear(news_of_silent_rank(3.2, "node2"));
        sleep_seconds(20);
      },
      testing::ExitedWithCode(6),
      "error: rank 0 on node1 waited more than 0.3 s in 'evaluation': rank 5 on node2 is missing: no heartbeat for "
      "3.2 s, since [0-9:]* UTC, last heard of in 'evaluation'");
}

TEST_F(WatchdogDeathTest, RankThatWasNeverHeardOfIsNamedWithoutAHost) {
  EXPECT_EXIT(
      {
        Watchdog watchdog(0, "node1");
        watchdog.set_peer_timeout(0.3);
        const auto guard = watchdog.guard("start-up", 0, 600);
        PeerNews news = news_of_silent_rank(4.0, "");
        news.silent.others = 2;
        watchdog.hear(news);
        sleep_seconds(20);
      },
      testing::ExitedWithCode(6),
      "rank 5 is missing: .* none since the job started; no heartbeat from 2 more ranks either.*btl_tcp_if_include");
}

TEST_F(WatchdogDeathTest, PeerThatLivesEndsTheWaitAtItsDeadlineOnlyAndIsNamedWithItsWork) {
  EXPECT_EXIT(
      {
        Watchdog watchdog(1, "node1");
        watchdog.set_peer_timeout(0.1);
        const auto guard = watchdog.guard("building a cache", 0, 0.8);
        PeerNews news;
        news.speaker = 1;
        news.working.rank = 0;
        copy_text("node3", news.working.last.host);
        copy_text("building a cache", news.working.last.phase);
        watchdog.hear(news);
        sleep_seconds(20);
      },
      testing::ExitedWithCode(6),
      "rank 1 on node1 waited more than 0.8 s in .*: rank 0 on node3 is alive but late: it is still in 'building a "
      "cache'.*runtime.peer_timeout_seconds");
}

TEST(Watchdog, PeersThatFellSilentForLessThanTheLeastSilenceAreNoReasonToEnd) {
  Watchdog watchdog(0, "node1");
  watchdog.set_peer_timeout(0.1);
  const auto guard = watchdog.guard("step", 1, 600);
  watchdog.hear(news_of_silent_rank(2.0, "node2"));
  sleep_seconds(0.5);
}

TEST(Watchdog, ActivityIsTheLongestWaitOrElseTheWork) {
  Watchdog watchdog(0, "node1");
  watchdog.work_in("training");
  EXPECT_STREQ(watchdog.activity().phase.data(), "training");
  EXPECT_LT(watchdog.activity().waits_seconds, 0.0);
  {
    const auto outer = watchdog.guard("all-reduce", 7, 600);
    const auto inner = watchdog.guard("sum", 0, 600);
    EXPECT_STREQ(watchdog.activity().phase.data(), "all-reduce");
    EXPECT_EQ(watchdog.activity().step, 7);
    EXPECT_GE(watchdog.activity().waits_seconds, 0.0);
  }
  EXPECT_STREQ(watchdog.activity().phase.data(), "training");
  EXPECT_STREQ(watchdog.activity().host.data(), "node1");
}

TEST(Watchdog, PhasesThatEndInTimeAreNotCounted) {
  Watchdog watchdog(0, "node1");
  const double start = core::now_seconds();
  while (core::now_seconds() - start < 3.0) {
    const auto guard = watchdog.guard("step", 1, 1.5);
    sleep_seconds(0.02);
  }
  sleep_seconds(2.0);  // no wait is left that could last too long
}

TEST(Watchdog, MovedGuardStillEndsItsPhase) {
  Watchdog watchdog(0, "node1");
  {
    auto first = watchdog.guard("step", 1, 1.5);
    const auto second = std::move(first);
  }
  sleep_seconds(2.0);
}

TEST(Watchdog, TimeInWhichTheWholeProcessWasStoppedDoesNotCount) {
  const pid_t child = fork();
  if (child == 0) {
    Watchdog watchdog(0, "node1");
    const auto guard = watchdog.guard("step", 1, 2.0);
    sleep_seconds(0.2);  // the watching thread is in the middle of a tick when everything stops
    raise(SIGSTOP);
    sleep_seconds(0.2);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, WUNTRACED), child);
  ASSERT_TRUE(WIFSTOPPED(status));
  sleep_seconds(2.6);
  kill(child, SIGCONT);
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// If its thread waited for something to watch, this would never return.
TEST(Watchdog, EndsWhenNothingIsWatched) { const Watchdog watchdog(0, "node1"); }

}  // namespace
}  // namespace neoloom::comm
