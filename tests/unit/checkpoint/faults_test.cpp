// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <random>
#include <stdexcept>

#include "runtime/checkpoint/directory.h"
#include "runtime/core/error.h"
#include "tests/unit/checkpoint/fixtures.h"

namespace neoloom::checkpoint {
namespace {

using testing::HasSubstr;

// Keeps every file of this process from growing beyond `bytes` while it lives: write() then fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, SIG_DFL);
  }

 private:
  rlimit before_{};
};

void expect_old_one_intact(const ScratchFolder& folder, const Directory& directory) {
  EXPECT_THAT(folder.names(), testing::ElementsAre("step-000000000001.h5", "step-000000000001.sha256"));
  const auto loaded = directory.newest_valid([](const auto&, const auto&) { FAIL() << "nothing may be damaged"; });
  EXPECT_TRUE(equal(loaded->state, make_state(1, 200000)));
}

TEST(FullDisk, WhereverTheWriteStopsTheOldCheckpointStaysAndNothingIsLeftBehind) {
  const ScratchFolder folder;
  const Directory directory(folder.path());
  const uint64_t bytes = directory.publish(make_state(1, 200000)).bytes;
  for (const uint64_t space : {uint64_t{0}, uint64_t{1}, uint64_t{4096}, bytes / 2, bytes - 1}) {
    {
      const FileSizeLimit limit(space);
      EXPECT_THAT(refusal([&] { directory.publish(make_state(2, 200000)); }), HasSubstr("cannot write"));
    }
    expect_old_one_intact(folder, directory);
  }
  directory.publish(make_state(2, 200000));
  EXPECT_EQ(directory.list().size(), 2U) << "saving works again once there is room";
}

// The HDF5 library must survive the failure, and the process must end cleanly.
TEST(FullDisk, AlsoWhenAStateGoesStraightToDisk) {
  const ScratchFolder folder;
  Directory(folder.path()).publish(make_state(1, 200000));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const Directory straight(folder.path(), /*largest_image_bytes=*/0);
    for (const rlim_t space : {rlim_t{0}, rlim_t{4096}, rlim_t{1000000}}) {
      const FileSizeLimit limit(space);
      if (refusal([&] { straight.publish(make_state(2, 200000)); }).empty()) ::_exit(1);
    }
    const bool recovered = equal(load(straight.publish(make_state(3, 200000)).path), make_state(3, 200000));
    ::exit(recovered ? 0 : 2);  // runs exit handlers, where HDF5 would crash
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
  EXPECT_EQ(folder.names().size(), 4U) << "no temporary file stays";
}

TEST(FullDisk, AFolderThatCannotBeCreatedIsNamed) {
  const ScratchFolder folder;
  write_bytes(folder.path("file"), "x");
  EXPECT_THAT(refusal([&] { Directory(folder.path("file/checkpoints")).publish(make_state(1)); }),
              HasSubstr("file/checkpoints"));
}

TEST(FullDisk, ARenameThatFailsRemovesTheNewHashAgain) {
  const ScratchFolder folder;
  const Directory directory(folder.path());
  directory.publish(make_state(1, 200000));
  ASSERT_EQ(::mkdir(folder.path(file_name(2)).c_str(), 0755), 0);
  EXPECT_THAT(refusal([&] { directory.publish(make_state(2, 200000)); }), HasSubstr("cannot rename"));
  ASSERT_EQ(::rmdir(folder.path(file_name(2)).c_str()), 0);
  expect_old_one_intact(folder, directory);
}

/// Writes a byte to `published` after each checkpoint.
[[noreturn]] void publish_for_ever(const std::string& path, int64_t step, int published) {
  const Directory directory(path);
  for (;; ++step) {
    directory.publish(make_state(step, 200000));
    if (::write(published, "", 1) != 1) ::_exit(1);
    directory.retain(3, -1);
  }
}

/// A process that publishes checkpoints until it is killed.
class Writer {
 public:
  Writer(const std::string& path, int64_t step) {
    int ends[2];
    if (::pipe(ends) != 0) throw std::runtime_error("no pipe");
    process_ = ::fork();
    if (process_ == 0) publish_for_ever(path, step, ends[1]);
    ::close(ends[1]);
    published_ = ends[0];
  }
  ~Writer() {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
    ::close(published_);
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  /// Waits until it has published one more checkpoint. Returns false if it ended.
  bool publishes() const {
    char byte = 0;
    return ::read(published_, &byte, 1) == 1;
  }

 private:
  pid_t process_ = -1;
  int published_ = -1;
};

// Waits for the writer's own progress, so a busy machine kills it no earlier. The pause after it meets the next write
// at any of its moments.
TEST(KilledWriter, LeavesALoadableNewestCheckpointAtAnyMoment) {
  constexpr int kKills = 30;
  const ScratchFolder folder;
  const Directory directory(folder.path());
  const double seconds = directory.publish(make_state(0, 200000)).seconds;
  std::mt19937 random(20240607);
  int64_t newest = 0;
  for (int kill = 0; kill < kKills; ++kill) {
    const int64_t awaited = kill % 2;
    {
      const Writer writer(folder.path(), newest + 1);
      for (int64_t i = 0; i < awaited; ++i) ASSERT_TRUE(writer.publishes());
      ::usleep(static_cast<useconds_t>(std::uniform_real_distribution<double>(0.0, 2e6 * seconds)(random)));
    }
    const auto loaded = directory.newest_valid(
        [](const auto& path, const auto& reason) { ADD_FAILURE() << "torn: " << path << ": " << reason; });
    ASSERT_TRUE(loaded.has_value());
    EXPECT_GE(loaded->entry.step, newest + awaited) << "a published checkpoint outlives its writer";
    EXPECT_TRUE(equal(loaded->state, make_state(loaded->entry.step, 200000)));
    newest = loaded->entry.step;
    directory.remove_leftovers();
    for (const std::string& name : folder.names()) EXPECT_FALSE(name.starts_with(".tmp-")) << name;
  }
  EXPECT_GE(newest, kKills / 2);
}

}  // namespace
}  // namespace neoloom::checkpoint
