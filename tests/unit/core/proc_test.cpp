// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/proc.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "tests/support/scratch.h"

namespace neoloom::core {
namespace {

TEST(Proc, ReadsTextAndSumsBytesOfAKey) {
  const ScratchFolder scratch;
  const std::string path = scratch.path("info");
  std::ofstream(path) << "model name\t: A: B @ 2 GHz\nmodel\t\t: 1\nRss: 3 kB\nRss:     4 kB\nRss_more: 9 kB\nempty:\n";
  EXPECT_EQ(proc_text(path, "model name"), "A: B @ 2 GHz");
  EXPECT_EQ(proc_text(path, "model"), "1");
  EXPECT_EQ(proc_text(path, "empty"), "");
  EXPECT_EQ(proc_text(path, "flags"), std::nullopt);
  EXPECT_EQ(proc_bytes(path, "Rss"), 7 * 1024);
  EXPECT_EQ(proc_bytes(path, "none"), 0);
  EXPECT_EQ(first_line(path), "model name\t: A: B @ 2 GHz");
}

TEST(Proc, AMissingFileIsUnknownNotAnError) {
  EXPECT_EQ(first_line("/proc/none"), "");
  EXPECT_EQ(proc_text("/proc/none", "x"), std::nullopt);
  EXPECT_EQ(proc_bytes("/proc/none", "x"), 0);
  EXPECT_FALSE(process_stat(-1));
}

TEST(Proc, KnowsParentAndStartOfAProcessAndItsRemains) {
  const std::optional<ProcessStat> mine = process_stat(::getpid());
  ASSERT_TRUE(mine);
  EXPECT_EQ(mine->parent, ::getppid());
  EXPECT_GT(mine->start_ticks, 0U);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  siginfo_t ended{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT), 0);
  const std::optional<ProcessStat> remains = process_stat(child);
  ASSERT_TRUE(remains);
  EXPECT_EQ(remains->state, 'Z');
  EXPECT_EQ(remains->parent, ::getpid());
  EXPECT_GE(remains->start_ticks, mine->start_ticks);
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(process_stat(child));
}

}  // namespace
}  // namespace neoloom::core
