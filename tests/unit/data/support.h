// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/token_store.h"
#include "data/tokenizer/tokenizer.h"
#include "runtime/core/error.h"

namespace neoloom::data {

/// A folder of its own for each test.
class TemporaryFolder {
 public:
  TemporaryFolder() : path_((std::filesystem::temp_directory_path() / "neoloom-data-XXXXXX").string()) {
    if (mkdtemp(path_.data()) == nullptr) throw std::runtime_error("no temporary folder");
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string file(const std::string& name) const { return path_ + "/" + name; }
  std::string write(const std::string& name, std::string_view content) const {
    std::ofstream(file(name), std::ios::binary) << content;
    return file(name);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline constexpr int32_t kEos = 256;

/// Writes a tokenizer whose ids are the bytes themselves, and kEos for "<|endoftext|>".
inline void write_byte_tokenizer(const TemporaryFolder& folder) {
  std::string vocab = "{";
  for (int byte = 0, next = 0x100; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    vocab += fmt::format("\"\\u{:04x}\": {}, ", printable ? byte : next++, byte);
  }
  folder.write("vocab.json", vocab + fmt::format("\"<|endoftext|>\": {}}}", kEos));
  folder.write("merges.txt", "#version: 0.2\n");
}

inline std::vector<int32_t> bytes_of(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char byte : text) ids.push_back(static_cast<unsigned char>(byte));
  return ids;
}

inline std::vector<int32_t> with_eos(std::vector<int32_t> ids) {
  ids.push_back(kEos);
  return ids;
}

/// What `act` throws; fails the test when it throws nothing.
inline core::Error error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const core::Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error was thrown";
  return {core::ErrorKind::kInternal, ""};
}

inline void expect_error(const std::function<void()>& act, core::ErrorKind kind,
                         const std::vector<std::string>& parts) {
  const core::Error error = error_of(act);
  EXPECT_EQ(error.exit_code(), static_cast<int>(kind)) << error.what();
  for (const std::string& part : parts) EXPECT_THAT(error.what(), testing::HasSubstr(part));
}

/// Builds stores from texts with the byte tokenizer.
class StoreTest : public testing::Test {
 protected:
  StoreTest() {
    write_byte_tokenizer(folder_);
    tokenizer_ = std::make_unique<Tokenizer>(Tokenizer::from_folder(folder_.path()));
    request_.options.label_column = "label";
  }

  std::shared_ptr<const TokenStore> build(const std::string& name, std::string_view content) {
    request_.files = folder_.write(name, content);
    const std::string path = TokenStore::path_for(request_, *tokenizer_, folder_.file("cache"));
    TokenStore::build(request_, *tokenizer_, path);
    return TokenStore::open(path);
  }
  void expect_data_error(const std::string& name, std::string_view content, const std::vector<std::string>& parts) {
    expect_error([&] { build(name, content); }, core::ErrorKind::kData, parts);
  }
  static std::string text_of(const TokenStore& store, int64_t sample) {
    std::string text;
    for (const int32_t id : store.ids(sample))
      text += id == kEos ? std::string("<eos>") : std::string(1, static_cast<char>(id));
    return text;
  }
  static std::vector<std::string> texts_of(const TokenStore& store) {
    std::vector<std::string> texts;
    for (int64_t sample = 0; sample < store.size(); ++sample) texts.push_back(text_of(store, sample));
    return texts;
  }
  static std::vector<std::string> labels_of(const TokenStore& store) {
    std::vector<std::string> labels;
    for (int64_t sample = 0; sample < store.size(); ++sample) {
      const int64_t label = store.label(sample);
      labels.push_back(label < 0 ? "-" : store.label_names()[static_cast<size_t>(label)]);
    }
    return labels;
  }

  TemporaryFolder folder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  StoreRequest request_;
};

}  // namespace neoloom::data
