// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model/checkpoints/adapter_folder.h"
#include "tests/support/scratch.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;
using ::testing::HasSubstr;

void put(const std::string& folder, const std::string& name, const std::string& content) {
  std::ofstream(fs::path(folder) / name) << content;
}

size_t entries(const std::string& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), {}));
}

TEST(PublishFolder, TheNewContentReplacesTheOldAsAWhole) {
  const ScratchFolder scratch;
  for (const char* round : {"1", "2", "3"}) {
    publish_folder(scratch.path("runs/adapter/"), [&](const std::string& fresh) {
      put(fresh, "config.json", round);
      put(fresh, std::string("only-") + round, "");
    });
    EXPECT_EQ(scratch.read("runs/adapter/config.json"), round);
    EXPECT_EQ(entries(scratch.path("runs/adapter")), 2U);
    EXPECT_EQ(entries(scratch.path("runs")), 1U);
  }
}

TEST(PublishFolder, ANewFolderMayBeNamedByOneRelativeName) {
  const ScratchFolder scratch;
  const fs::path before = fs::current_path();
  fs::current_path(scratch.path());
  EXPECT_NO_THROW(publish_folder("merged/", [](const std::string& fresh) { put(fresh, "config.json", "new"); }));
  fs::current_path(before);
  EXPECT_EQ(scratch.read("merged/config.json"), "new");
}

TEST(PublishFolder, AFailureLeavesTheOldContentAndNothingElse) {
  const ScratchFolder scratch;
  const auto target = scratch.path("adapter");
  publish_folder(target, [&](const std::string& fresh) { put(fresh, "config.json", "old"); });
  const auto broken = [&](const std::string& fresh) {
    put(fresh, "config.json", "new");
    core::fail(ErrorKind::kWeights, "disk full");
  };
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { publish_folder(target, broken); }), HasSubstr("disk full"));
  const auto full = [](const std::string&) { throw core::WriteError(ErrorKind::kWeights, "no space left"); };
  EXPECT_THAT(error_of(ErrorKind::kOutput, [&] { publish_folder(target, full); }), HasSubstr("no space left"));
  EXPECT_EQ(scratch.read("adapter/config.json"), "old");
  EXPECT_EQ(entries(scratch.path()), 1U);
}

TEST(PublishFolder, AFolderWithOtherThingsIsNotTouched) {
  const ScratchFolder scratch;
  scratch.write("home/thesis.tex", "years of work");
  const auto fill = [](const std::string& fresh) { put(fresh, "config.json", "new"); };
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { publish_folder(scratch.path("home"), fill); }),
              HasSubstr("holds other files"));
  EXPECT_EQ(scratch.read("home/thesis.tex"), "years of work");
  scratch.write("file", "");
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { publish_folder(scratch.path("file"), fill); }),
              HasSubstr("not a folder"));
  fs::create_directories(scratch.path("empty"));
  publish_folder(scratch.path("empty"), fill);
  EXPECT_EQ(scratch.read("empty/config.json"), "new");
}

TEST(PublishFolder, AReaderAlwaysFindsAWholeFolder) {
  const ScratchFolder scratch;
  const auto target = scratch.path("adapter");
  const auto fill = [](const std::string& fresh) {
    put(fresh, "config.json", "x");
    put(fresh, "adapter_model.safetensors", "y");
  };
  publish_folder(target, fill);
  const pid_t writer = ::fork();
  if (writer == 0) {
    for (int i = 0; i < 100; ++i) publish_folder(target, fill);
    ::_exit(0);
  }
  int status = 0;
  int64_t seen = 0, absent = 0;
  while (::waitpid(writer, &status, WNOHANG) == 0) {
    struct stat found {};
    if (::stat(target.c_str(), &found) != 0) ++absent;
    ++seen;
  }
  EXPECT_EQ(status, 0);
  EXPECT_GT(seen, 100);
  EXPECT_EQ(absent, 0);
}

TEST(PublishFolder, ALinkKeepsPointingAtTheSamePlace) {
  const ScratchFolder scratch;
  fs::create_directories(scratch.path("disk/adapter"));
  fs::create_symlink(scratch.path("disk/adapter"), scratch.path("adapter"));
  publish_folder(scratch.path("adapter"), [](const std::string& fresh) { put(fresh, "config.json", "new"); });
  EXPECT_TRUE(fs::is_symlink(scratch.path("adapter")));
  EXPECT_EQ(scratch.read("disk/adapter/config.json"), "new");
}

}  // namespace
}  // namespace neoloom::model
