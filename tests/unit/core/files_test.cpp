// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "runtime/core/checksum.h"
#include "tests/support/scratch.h"

namespace neoloom::core {
namespace {

using ::testing::HasSubstr;

TEST(Files, WhatIsNoRegularFileIsNamedAndNeverWaitedFor) {
  const ScratchFolder scratch;
  ASSERT_EQ(::mkfifo(scratch.path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { read_file(scratch.path("pipe")); }),
            scratch.path("pipe") + " is not a regular file but a named pipe");
  EXPECT_THAT(error_of([&] { MappedFile(scratch.path()); }), HasSubstr("is not a regular file but a folder"));
  EXPECT_THAT(error_of([&] { open_regular("/dev/null"); }), HasSubstr("is not a regular file but a device"));
  EXPECT_THAT(error_of([&] { open_regular(scratch.path("absent")); }), HasSubstr("No such file"));
}

TEST(Files, AFileLargerThanWhatItIsMeantForIsRefusedBeforeItIsRead) {
  const ScratchFolder scratch;
  const std::string path = scratch.path("sparse");
  std::ofstream(path) << "x";
  ASSERT_EQ(::truncate(path.c_str(), off_t{1} << 40), 0);
  EXPECT_THAT(error_of([&] { read_file(path); }), HasSubstr("1099511627776 bytes, at most 134217728 are read"));
  EXPECT_THAT(error_of([&] { read_file(path, ErrorKind::kData, 10); }), HasSubstr("at most 10 are read"));
}

TEST(Files, ProcessesOfTheSameNumberOnTwoHostsWriteUnderUnlikeNames) {
  EXPECT_NE(temporary_name("folder/file"), temporary_name("folder/file"));
  EXPECT_THAT(temporary_name("folder/file"), ::testing::StartsWith("folder/.file.tmp-"));
}

std::string checksum_of(const std::string& path, uint64_t digits_at) {
  const UniqueFd file = open_regular(path);
  return file_checksum(file.get(), std::filesystem::file_size(path), digits_at, path, ErrorKind::kData);
}

TEST(Checksum, EveryByteCountsButItsOwnDigits) {
  const ScratchFolder scratch;
  const std::string path = scratch.path("file");
  constexpr size_t kSize = (size_t{9} << 20) + 17;  // three chunks
  std::string content(kSize, '\0');
  std::mt19937 random(20240903);
  for (char& byte : content) byte = static_cast<char>(random());
  const size_t digits_at = (size_t{4} << 20) - 7;  // across the border of two chunks
  const auto sum_with = [&](size_t at) {
    std::string changed = content;
    if (at < kSize) changed[at] = static_cast<char>(changed[at] ^ 1);
    std::ofstream(path, std::ios::binary) << changed;
    return checksum_of(path, digits_at);
  };
  const std::string sum = sum_with(kSize);
  EXPECT_EQ(sum.size(), kChecksumDigits);
  for (const size_t at : {size_t{0}, digits_at - 1, digits_at + kChecksumDigits, size_t{8} << 20, kSize - 1}) {
    EXPECT_NE(sum_with(at), sum) << at;
  }
  for (const size_t at : {digits_at, digits_at + 7, digits_at + kChecksumDigits - 1}) {
    EXPECT_EQ(sum_with(at), sum) << at;
  }
  std::swap_ranges(content.begin(), content.begin() + 1024, content.begin() + (8 << 20));
  EXPECT_NE(sum_with(kSize), sum) << "blocks have their places";
}

}  // namespace
}  // namespace neoloom::core
