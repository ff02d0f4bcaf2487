// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/support/scratch.h"

namespace neoloom::core {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class CacheTest : public ::testing::Test {
 protected:
  CacheTest() {
    fs::create_directories(cache_.directory + "/weights");
    ::chmod(cache_.directory.c_str(), 0755);
    ::chmod((cache_.directory + "/weights").c_str(), 0755);
    std::ofstream(file_) << "x";
    ::chmod(file_.c_str(), 0644);
  }
  std::string refusal() {
    try {
      cache_.require_own(file_);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      return error.what();
    }
    return "";
  }
  ScratchFolder scratch_;
  Cache cache_{scratch_.path("cache")};
  std::string file_ = cache_.directory + "/weights/file";
};

TEST_F(CacheTest, WhatOnlyTheUserCanWriteIsUsed) {
  EXPECT_EQ(refusal(), "");
  fs::remove(file_);
  EXPECT_EQ(refusal(), "") << "nothing there yet";
  fs::remove_all(cache_.directory);
  EXPECT_EQ(refusal(), "") << "no folder yet";
}

TEST_F(CacheTest, AFileThatEverybodyMayWriteIsRefusedWithTheWaysOut) {
  ::chmod(file_.c_str(), 0666);
  EXPECT_THAT(refusal(), AllOf(HasSubstr(file_ + " can be written by everybody"), HasSubstr("remove that file"),
                               HasSubstr("runtime.cache_dir"), HasSubstr("runtime.trust_cache: true")));
  cache_.trusts_everybody = true;
  EXPECT_EQ(refusal(), "");
  cache_.trusts_everybody = false;
  cache_.verified = true;
  EXPECT_EQ(refusal(), "") << "another process has looked";
}

TEST_F(CacheTest, AnyFolderUpToTheCacheItselfThatEverybodyMayWriteIsRefusedUnlessSticky) {
  for (const std::string& folder : {cache_.directory, cache_.directory + "/weights"}) {
    ::chmod(folder.c_str(), 0777);
    EXPECT_THAT(refusal(), HasSubstr(folder + " is a folder that everybody may write to")) << folder;
    ::chmod(folder.c_str(), 01777);
    EXPECT_EQ(refusal(), "") << folder;
    ::chmod(folder.c_str(), 0755);
  }
  ::chmod(scratch_.path().c_str(), 0777);
  EXPECT_EQ(refusal(), "") << "what lies above the cache is the user's choice";
  cache_.directory += "/";
  EXPECT_EQ(refusal(), "") << "a slash at the end changes nothing";
}

TEST_F(CacheTest, AFileOfAnotherUserIsRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can make a file of another user";
  ASSERT_EQ(::chown(file_.c_str(), 12345, 12345), 0);
  EXPECT_THAT(refusal(), HasSubstr("belongs to the user with id 12345"));
}

TEST_F(CacheTest, AFolderInAFilesPlaceIsSetAsideAndKept) {
  fs::remove(file_);
  fs::create_directories(file_ + "/with/content");
  std::string said;
  cache_.say = [&](const std::string& line) { said += line; };
  EXPECT_FALSE(cache_.use(file_, [] { fail(ErrorKind::kData, "it is a folder"); }));
  EXPECT_EQ(said, "cache: " + file_ + " cannot be used and is rebuilt: it is a folder");
  EXPECT_FALSE(fs::exists(file_));
  bool kept = false;
  for (const auto& entry : fs::directory_iterator(cache_.directory + "/weights")) {
    kept = kept || fs::exists(entry.path() / "with/content");
  }
  EXPECT_TRUE(kept);
}

}  // namespace
}  // namespace neoloom::core
