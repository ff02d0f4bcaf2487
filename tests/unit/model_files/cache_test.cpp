// SPDX-License-Identifier: Apache-2.0
// Tests converted weights, packed weights and records of hashes: they are verified before they are used.
#include <ATen/ops/randn.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <random>

#include "model/checkpoints/safetensors.h"
#include "model/checkpoints/tensor_names.h"
#include "model/weight_cache/packed_weights_file.h"
#include "model/weight_cache/weight_cache.h"
#include "tests/support/scratch.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

GptNeoConfig small_config() {
  GptNeoConfig config;
  config.vocab_size = 13;
  config.max_position_embeddings = 6;
  config.hidden_size = 4;
  config.num_layers = 1;
  config.num_heads = 2;
  config.intermediate_size = 12;
  return config;
}

class WeightCache : public ::testing::Test {
 protected:
  WeightCache() {
    write_source();
    cache_.say = [this](const std::string& line) { said_.push_back(line); };
    weights_ = prepare();
    if (packed_weights()) packed_ = prepare_packed_weights(weights_, config_, Dtype::kFloat32, cache_, false);
    record_ = fs::directory_iterator(scratch_.path("cache/hashes"))->path().string();
  }
  static bool packed_weights() { return has_packed_gemm(Dtype::kFloat32); }
  void write_source() {
    fs::create_directories(scratch_.path("base"));
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const auto& [name, shape] : body_shapes(config_)) tensors.emplace_back(name, at::randn(shape));
    write_safetensors(scratch_.path("base/model.safetensors"), tensors);
    const timespec times[2] = {{1'000'000'000, 5}, {1'000'000'000, 5}};
    ASSERT_EQ(::utimensat(AT_FDCWD, scratch_.path("base/model.safetensors").c_str(), times, 0), 0);
  }
  std::string prepare() {
    said_.clear();
    std::string path = prepare_weights(scratch_.path("base"), config_, Dtype::kFloat16, cache_, false);
    if (!packed_.empty()) prepare_packed_weights(path, config_, Dtype::kFloat32, cache_, false);
    return path;
  }
  std::string read(const std::string& path) { return scratch_.read(fs::relative(path, scratch_.path()).string()); }
  void write(const std::string& path, const std::string& content) {
    scratch_.write(fs::relative(path, scratch_.path()).string(), content);
  }
  std::vector<std::string> files() const { return packed_.empty() ? Names{weights_} : Names{weights_, packed_}; }
  void expect_rebuilt(const std::string& path, const std::string& whole, const std::string& reason) {
    EXPECT_EQ(prepare(), weights_);
    ASSERT_EQ(said_.size(), 1U) << reason;
    EXPECT_THAT(said_.front(), AllOf(HasSubstr(path + " cannot be used and is rebuilt"), HasSubstr(reason)));
    EXPECT_TRUE(read(path) == whole) << reason;
    prepare();
    EXPECT_THAT(said_, IsEmpty()) << reason;
  }

  using Names = std::vector<std::string>;
  ScratchFolder scratch_;
  GptNeoConfig config_ = small_config();
  core::Cache cache_{scratch_.path("cache")};
  std::string weights_, packed_, record_;
  Names said_;
};

TEST_F(WeightCache, OneFlippedBitAnywhereIsFoundNamedAndMended) {
  std::mt19937_64 random(20240902);
  for (const std::string& path : files()) {
    const std::string whole = read(path);
    for (int i = 0; i < 60; ++i) {
      std::string changed = whole;
      const size_t at = random() % changed.size();
      changed[at] = static_cast<char>(changed[at] ^ (1 << (random() % 8)));
      write(path, changed);
      prepare();
      EXPECT_EQ(said_.size(), 1U) << "byte " << at;
      EXPECT_TRUE(read(path) == whole) << "byte " << at;
    }
  }
}

TEST_F(WeightCache, FilesWithoutAChecksumAreThoseOfOlderVersions) {
  for (const std::string& path : files()) {
    const std::string whole = read(path);
    const SafetensorsFile file(path);
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const auto& [name, info] : file.tensors()) tensors.emplace_back(name, file.tensor(name).clone());
    write_safetensors(path, tensors);
    expect_rebuilt(path, whole, "no checksum");
  }
}

TEST_F(WeightCache, AFileUnderAnotherOnesNameIsMadeAnew) {
  for (const std::string& path : files()) {
    const std::string whole = read(path);
    const std::string other = path == weights_ ? prepare_weights(scratch_.path("base"), config_, Dtype::kBFloat16,
                                                                 core::Cache(cache_.directory), false)
                                               : weights_;
    write(path, read(other));
    expect_rebuilt(path, whole, "it was made as " + fs::path(other).filename().string());
  }
}

TEST_F(WeightCache, AFolderOrAPipeInAFilesPlaceGivesWay) {
  for (const std::string& path : files()) {
    const std::string whole = read(path);
    fs::remove(path);
    fs::create_directories(path + "/inside");
    expect_rebuilt(path, whole, "a folder");
    fs::remove(path);
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
    expect_rebuilt(path, whole, "a named pipe");
  }
}

TEST_F(WeightCache, ARecordOfHashesThatWasTamperedWithIsForgotten) {
  const std::string whole = read(record_);
  for (const char* key : {"path", "size_bytes", "mtime_nanoseconds", "sha256", "checksum"}) {
    nlohmann::json record = nlohmann::json::parse(whole);
    if (record[key].is_string()) {
      std::string text = record[key];
      text.back() = text.back() == '0' ? '1' : '0';
      record[key] = text;
    } else {
      record[key] = record[key].get<int64_t>() + 1;
    }
    write(record_, record.dump());
    expect_rebuilt(record_, whole, "its checksum is not that of its content");
  }
  for (const char* text : {"", "[]", "{broken", "{\"path\": 1}"}) {
    write(record_, text);
    expect_rebuilt(record_, whole, "");
  }
}

TEST_F(WeightCache, ARecordUnderAnotherFilesNameOrAFolderThereGivesWay) {
  const std::string whole = read(record_);
  fs::create_directories(scratch_.path("second"));
  fs::rename(scratch_.path("base/model.safetensors"), scratch_.path("second/model.safetensors"));
  prepare_weights(scratch_.path("second"), config_, Dtype::kFloat16, cache_, false);
  fs::rename(scratch_.path("second/model.safetensors"), scratch_.path("base/model.safetensors"));
  for (const auto& entry : fs::directory_iterator(scratch_.path("cache/hashes"))) {
    if (entry.path() != record_) write(record_, read(entry.path()));
  }
  expect_rebuilt(record_, whole, "it was made for " + scratch_.path("second/model.safetensors"));
  fs::remove(record_);
  fs::create_directories(record_ + "/inside");
  expect_rebuilt(record_, whole, "a folder");
}

TEST_F(WeightCache, WhatOthersMayWriteIsRefusedUnlessTheyAreTrusted) {
  std::vector<std::string> paths = files();
  paths.push_back(record_);
  for (const std::string& path : paths) {
    ::chmod(path.c_str(), 0666);
    EXPECT_THAT(error_of(ErrorKind::kUsage, [&] { prepare(); }),
                AllOf(HasSubstr(path), HasSubstr("runtime.trust_cache")));
    cache_.trusts_everybody = true;
    EXPECT_EQ(prepare(), weights_);
    cache_.trusts_everybody = false;
    ::chmod(path.c_str(), 0644);
  }
}

TEST_F(WeightCache, ProcessesOfANodeWhereOneHasVerifiedDoNotReadTheFilesAgain) {
  std::string changed = read(weights_);
  changed.back() = static_cast<char>(changed.back() ^ 1);
  write(weights_, changed);
  cache_.verified = true;
  EXPECT_EQ(prepare(), weights_);
  EXPECT_THAT(said_, IsEmpty());
}

TEST_F(WeightCache, AFolderThatCannotBeMadeIsAWriteError) {
  core::Cache nowhere("/proc/self/cache");
  try {
    prepare_weights(scratch_.path("base"), config_, Dtype::kFloat16, nowhere, false);
    ADD_FAILURE() << "expected an error";
  } catch (const core::WriteError& error) {
    EXPECT_THAT(error.what(), HasSubstr("/proc/self/cache"));
  }
}

}  // namespace
}  // namespace neoloom::model
