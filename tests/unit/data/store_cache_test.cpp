// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>
#include <unistd.h>

#include <random>

#include "runtime/core/files.h"
#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using testing::HasSubstr;
namespace fs = std::filesystem;

/// Holds a published store in a cache, and what the user is told about it.
class CachedStore : public StoreTest {
 protected:
  CachedStore() {
    std::string rows = "text,label\n";
    for (int i = 0; i < 300; ++i) rows += std::string(static_cast<size_t>(i % 40) + 1, 'a') + ",x\n";
    build("a.csv", rows);
    path_ = TokenStore::path_for(request_, *tokenizer_, cache_.directory);
    whole_ = core::read_file(path_);
    cache_.say = [this](const std::string& line) { said_.push_back(line); };
  }
  bool is_whole() {
    said_.clear();
    return TokenStore::is_whole(path_, cache_);
  }
  void write(std::string_view content) { folder_.write("cache/" + fs::path(path_).filename().string(), content); }
  void expect_rebuilt(const std::string& reason) {
    EXPECT_FALSE(is_whole()) << reason;
    ASSERT_EQ(said_.size(), 1U) << reason;
    EXPECT_THAT(said_.front(), testing::AllOf(HasSubstr(path_ + " cannot be used and is rebuilt"), HasSubstr(reason)));
    TokenStore::build(request_, *tokenizer_, path_);
    EXPECT_TRUE(core::read_file(path_) == whole_) << reason;
    EXPECT_TRUE(is_whole()) << reason;
  }

  core::Cache cache_{folder_.file("cache")};
  std::string path_;
  std::string whole_;
  std::vector<std::string> said_;
};

TEST_F(CachedStore, OneFlippedBitAnywhereIsFoundBeforeTheFileIsParsed) {
  ASSERT_TRUE(is_whole());
  std::mt19937_64 random(20240901);
  for (int i = 0; i < 400; ++i) {
    std::string changed = whole_;
    const size_t at = i < 64 ? changed.size() - 1 - static_cast<size_t>(i) : random() % changed.size();
    changed[at] = static_cast<char>(changed[at] ^ (1 << (random() % 8)));
    write(changed);
    EXPECT_FALSE(is_whole()) << "byte " << at;
    EXPECT_EQ(said_.size(), 1U) << "byte " << at;
  }
  expect_rebuilt("checksum");
}

TEST_F(CachedStore, AStoreThatWasCutOrGrewIsMadeAnew) {
  for (const size_t bytes :
       {size_t{0}, size_t{1}, size_t{64}, whole_.size() / 2, whole_.size() - 64, whole_.size() - 1}) {
    write(whole_.substr(0, bytes));
    expect_rebuilt("it");
  }
  write(whole_ + whole_);
  expect_rebuilt("its checksum is");
}

TEST_F(CachedStore, AStoreUnderAnotherOnesNameIsMadeAnew) {
  request_.max_length_tokens = 5;
  TokenStore::build(request_, *tokenizer_, path_);
  request_.max_length_tokens = StoreRequest().max_length_tokens;
  expect_rebuilt("it was made as tokens-");
}

TEST_F(CachedStore, AFolderOrAPipeInItsPlaceGivesWay) {
  fs::remove(path_);
  fs::create_directories(path_ + "/inside");
  expect_rebuilt("a folder");
  fs::remove(path_);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  expect_rebuilt("a named pipe");
}

TEST_F(CachedStore, AStoreThatOthersMayWriteIsRefused) {
  ::chmod(path_.c_str(), 0666);
  expect_error([&] { is_whole(); }, ErrorKind::kUsage, {path_, "runtime.trust_cache"});
}

TEST_F(CachedStore, AFullDiskIsAWriteErrorThatNamesTheFile) {
  fs::remove_all(cache_.directory);
  folder_.write("cache", "a file where the folder should be");
  try {
    TokenStore::build(request_, *tokenizer_, path_);
    ADD_FAILURE() << "expected an error";
  } catch (const core::WriteError& error) {
    EXPECT_THAT(error.what(), HasSubstr(cache_.directory));
  }
}

}  // namespace
}  // namespace neoloom::data
