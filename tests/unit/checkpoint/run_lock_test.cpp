// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/run_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include "runtime/core/error.h"
#include "tests/unit/checkpoint/fixtures.h"

namespace neoloom::checkpoint {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
namespace fs = std::filesystem;

void sleep_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

// Is so long that a test which waits for it by mistake is noticed.
constexpr double kForEver = 600.0;

RunLock::Options options(double stale_seconds = kForEver, double heartbeat_seconds = kForEver) {
  RunLock::Options options;
  options.stale_seconds = stale_seconds;
  options.heartbeat_seconds = heartbeat_seconds;
  return options;
}

RunLock::Options of_slurm_job(int restarts) {
  RunLock::Options result = options();
  result.slurm_job = "17";
  result.slurm_restarts = restarts;
  return result;
}

std::string refusal_to_lock(const std::string& folder, RunLock::Options with = options()) {
  try {
    const RunLock lock(folder, std::move(with));
    return "";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kUsage);
    return error.what();
  }
}

// Makes the lock of a holder that was killed: its process ends without a destructor.
std::string lock_of_a_dead_process(const std::string& folder) {
  const pid_t child = ::fork();
  if (child == 0) {
    new RunLock(folder, options());
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return read_bytes(folder + "/run.lock");
}

std::string replaced(std::string text, const std::string& key, const std::string& value) {
  const size_t begin = text.find("\n" + key + " ") + 1;
  return text.replace(begin, text.find('\n', begin) - begin, key + " " + value);
}

std::string as_of_another_boot(const std::string& text) { return replaced(text, "boot_id", "another"); }

TEST(RunLock, ASecondJobIsRefusedAndToldWhoHoldsTheFolder) {
  const ScratchFolder folder;
  const RunLock lock(folder.path(), options());
  EXPECT_THAT(refusal_to_lock(folder.path()),
              AllOf(HasSubstr(folder.path()), HasSubstr(fmt::format("process {} on ", ::getpid())),
                    HasSubstr("trainer_config.output_dir")));
}

TEST(RunLock, EndsWithItsHolderAndLeavesNothing) {
  const ScratchFolder scratch;
  const std::string folder = scratch.path("runs/mine");
  { const RunLock lock(folder, options()); }
  EXPECT_FALSE(fs::exists(folder)) << "made by the lock, and empty";
  fs::create_directories(folder);
  { const RunLock lock(folder, options()); }
  EXPECT_TRUE(fs::is_empty(folder));
  EXPECT_THAT(refusal_to_lock(folder), IsEmpty());
}

TEST(RunLock, OfAKilledHolderIsTakenOverAtOnce) {
  const ScratchFolder folder;
  lock_of_a_dead_process(folder.path());
  EXPECT_THAT(refusal_to_lock(folder.path()), IsEmpty());
}

TEST(RunLock, ANewProcessWithTheNumberOfTheHolderIsNotTheHolder) {
  const ScratchFolder folder;
  const std::string text = lock_of_a_dead_process(folder.path());
  write_bytes(folder.path("run.lock"), replaced(text, "pid", std::to_string(::getpid())));
  EXPECT_THAT(refusal_to_lock(folder.path()), IsEmpty());
}

TEST(RunLock, OfAnotherHostIsTakenOverWhenItsCountStandsStill) {
  const ScratchFolder folder;
  write_bytes(folder.path("run.lock"), as_of_another_boot(lock_of_a_dead_process(folder.path())));
  RunLock::Options patient = options(0.3);
  std::vector<std::string> said;
  patient.say = [&](const std::string& text) { said.push_back(text); };
  EXPECT_THAT(refusal_to_lock(folder.path(), patient), IsEmpty());
  EXPECT_THAT(said, testing::ElementsAre(HasSubstr("waiting up to"), HasSubstr("took over the lock")));
}

TEST(RunLock, OfAnotherHostIsRespectedWhileItsCountGoesUp) {
  const ScratchFolder folder;
  const std::string text = as_of_another_boot(lock_of_a_dead_process(folder.path()));
  write_bytes(folder.path("run.lock"), text);
  std::thread holder([&] {
    sleep_seconds(0.3);
    write_bytes(folder.path("run.lock"), replaced(text, "beats", "000000000001"));
  });
  EXPECT_THAT(refusal_to_lock(folder.path()), HasSubstr("in use by another training job"));
  holder.join();
}

TEST(RunLock, AFileWithoutWordsIsTakenOverAfterTheWait) {
  const ScratchFolder folder;
  for (const char* text : {"", "nonsense\n", "host x\npid y\nbeats z\n"}) {
    write_bytes(folder.path("run.lock"), text);
    EXPECT_THAT(refusal_to_lock(folder.path(), options(0.2)), IsEmpty());
  }
}

TEST(RunLock, ARequeuedSlurmJobTakesOverFromItsOlderCopyWhichLearnsIt) {
  const ScratchFolder folder;
  std::atomic<int> lost{0};
  RunLock::Options older = of_slurm_job(0);
  older.heartbeat_seconds = 0.05;
  older.on_lost = [&](const std::string& text) {
    EXPECT_THAT(text, HasSubstr("now belongs to another training job"));
    ++lost;
  };
  const RunLock old_copy(folder.path(), older);
  const RunLock requeued(folder.path(), of_slurm_job(1));
  for (int i = 0; i < 600 && lost == 0; ++i) sleep_seconds(0.05);
  EXPECT_EQ(lost, 1);
  EXPECT_THAT(refusal_to_lock(folder.path(), of_slurm_job(0)), HasSubstr("Slurm job 17")) << "the older copy again";
}

TEST(RunLock, AHoldersCountGoesUpAndADeletedFileIsPutBack) {
  const ScratchFolder folder;
  const RunLock lock(folder.path(), options(kForEver, 0.02));
  const std::string before = read_bytes(folder.path("run.lock"));
  fs::remove(folder.path("run.lock"));
  for (int i = 0; i < 600 && !fs::exists(folder.path("run.lock")); ++i) sleep_seconds(0.05);
  std::string now = before;
  for (int i = 0; i < 600 && now == before; ++i) {
    sleep_seconds(0.05);
    now = read_bytes(folder.path("run.lock"));
  }
  EXPECT_NE(now, before);
  EXPECT_EQ(now.size(), before.size());
  EXPECT_THAT(refusal_to_lock(folder.path()), HasSubstr("in use"));
}

TEST(RunLock, OfManyThatStartTogetherOneGetsTheFolder) {
  const ScratchFolder folder;
  lock_of_a_dead_process(folder.path());
  std::atomic<int> holders{0};
  std::vector<std::thread> starts;
  starts.reserve(8);
  for (int i = 0; i < 8; ++i) {
    starts.emplace_back([&] {
      try {
        const RunLock lock(folder.path(), options());
        ++holders;
        sleep_seconds(0.5);
      } catch (const core::Error&) {
      }
    });
  }
  for (std::thread& start : starts) start.join();
  EXPECT_EQ(holders, 1);
}

TEST(RunFolder, ANameThatCannotBeAFolderIsRefusedWithTheReason) {
  const ScratchFolder scratch;
  EXPECT_THAT(refusal_to_lock(""), HasSubstr("output_dir is empty"));
  write_bytes(scratch.path("file"), "x");
  EXPECT_THAT(refusal_to_lock(scratch.path("file")), HasSubstr("is a file"));
  fs::create_symlink("/nonexistent/place", scratch.path("dangling"));
  EXPECT_THAT(refusal_to_lock(scratch.path("dangling")), HasSubstr("link to /nonexistent/place, which does not exist"));
  fs::create_directory(scratch.path("real"));
  fs::create_directory_symlink(scratch.path("real"), scratch.path("good"));
  EXPECT_THAT(refusal_to_lock(scratch.path("good")), IsEmpty());
}

}  // namespace
}  // namespace neoloom::checkpoint
