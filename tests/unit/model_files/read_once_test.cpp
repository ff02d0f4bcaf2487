// SPDX-License-Identifier: Apache-2.0
#include "model/weight_cache/read_once.h"

#include <cstring>
#include <stdexcept>

#include "runtime/core/hash.h"
#include "tests/support/scratch.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;
using ::testing::HasSubstr;

constexpr size_t kLargeBytes = size_t{50} << 20;  // more than what is in memory at once

std::string bytes_of_many_values(size_t count) {
  std::string bytes(count, '\0');
  uint64_t state = 1;
  for (char& byte : bytes) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    byte = static_cast<char>(state >> 56);
  }
  return bytes;
}

class ReadOnce : public ::testing::Test {
 protected:
  void write(const std::string& bytes) {
    bytes_ = bytes;
    scratch_.write("file", bytes);
  }
  std::string read(const std::vector<FilePart>& parts, bool hashes, const std::function<void(const FilePiece&)>& use) {
    return read_once(scratch_.path("file"), parts, hashes, CachePages::kDrop, use);
  }
  ScratchFolder scratch_;
  std::string bytes_;
};

TEST_F(ReadOnce, UsedPartsArriveInOrderAndWholeAndAllBytesAreHashed) {
  write(bytes_of_many_values(kLargeBytes));
  const std::vector<FilePart> parts = {{0, 13, 1, false},
                                       {13, 13 + 6 * 5'000'000, 6, true},  // pieces that are no power of two
                                       {13 + 6 * 5'000'000, kLargeBytes - 5, 1, false},
                                       {kLargeBytes - 5, kLargeBytes, 1, true}};
  for (const bool hashes : {true, false}) {
    std::string seen;
    const std::string hash = read(parts, hashes, [&](const FilePiece& piece) {
      ASSERT_TRUE(parts[piece.part].used);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(piece.data) % 64, 0U);
      EXPECT_EQ(piece.offset_byte % parts[piece.part].unit_bytes, 0U);
      EXPECT_EQ(piece.size_bytes % parts[piece.part].unit_bytes, 0U);
      const size_t done = piece.part == 1 ? seen.size() : seen.size() - size_t{6} * 5'000'000;
      EXPECT_EQ(piece.offset_byte, done);
      seen.append(reinterpret_cast<const char*>(piece.data), piece.size_bytes);
    });
    EXPECT_TRUE(seen == bytes_.substr(13, size_t{6} * 5'000'000) + bytes_.substr(kLargeBytes - 5));
    EXPECT_EQ(hash, hashes ? core::sha256_hex(bytes_) : "");
  }
}

TEST_F(ReadOnce, AnErrorOfTheUserEndsTheOtherReadersAndArrives) {
  write(bytes_of_many_values(kLargeBytes));
  int calls = 0;
  const auto refuse = [&](const FilePiece&) {
    if (++calls == 2) throw std::runtime_error("enough");
  };
  EXPECT_THROW(read({{0, kLargeBytes, 1, true}}, true, refuse), std::runtime_error);
  EXPECT_EQ(calls, 2);
}

TEST_F(ReadOnce, AFileThatIsBeingWrittenIsRefused) {
  write("0123456789");
  const auto nothing = [](const FilePiece&) {};
  for (const size_t end : {size_t{9}, size_t{11}}) {
    EXPECT_THAT(error_of(ErrorKind::kWeights,
                         [&] {
                           read({{0, end, 1, true}}, true, nothing);
                         }),
                HasSubstr("it is being changed"));
  }
  std::filesystem::resize_file(scratch_.path("file"), kLargeBytes);
  const auto cut = [&](const FilePiece&) { std::filesystem::resize_file(scratch_.path("file"), 10); };
  EXPECT_THAT(error_of(ErrorKind::kWeights,
                       [&] {
                         read({{0, kLargeBytes, 1, true}}, true, cut);
                       }),
              HasSubstr("it is being changed"));
}

}  // namespace
}  // namespace neoloom::model
