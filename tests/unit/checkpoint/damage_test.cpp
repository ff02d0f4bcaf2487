// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "runtime/checkpoint/directory.h"
#include "tests/unit/checkpoint/fixtures.h"

namespace neoloom::checkpoint {
namespace {

class Damage : public testing::Test {
 protected:
  Damage() : path_(Directory(folder_.path()).publish(make_state(1)).path), good_(read_bytes(path_)) {}

  void expect_refused(const std::string& bytes, size_t where) {
    write_bytes(path_, bytes);
    EXPECT_THAT(refusal([&] { load(path_); }), testing::HasSubstr(path_)) << "damage at byte " << where;
  }

  // Changes the file in place: writing all of it for every byte would take most of the test's time.
  void flip_bit(size_t at) {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekg(static_cast<std::streamoff>(at));
    const auto flipped = static_cast<char>(file.get() ^ (1 << (at % 8)));
    file.seekp(static_cast<std::streamoff>(at));
    file.put(flipped);
  }

  ScratchFolder folder_;
  std::string path_;
  std::string good_;
};

TEST_F(Damage, TheUndamagedFileLoads) {
  EXPECT_EQ(refusal([&] { load(path_); }), "");
}

TEST_F(Damage, AFileCutAtEvery512BytesIsRefused) {
  for (size_t length = 0; length < good_.size(); length += 512) expect_refused(good_.substr(0, length), length);
  expect_refused(good_.substr(0, good_.size() - 1), good_.size() - 1);
  expect_refused(good_ + '\0', good_.size());
}

TEST_F(Damage, OneFlippedBitInAnyByteIsRefused) {
  ASSERT_LT(good_.size(), 40000U) << "keep the fixture small: every byte is one load";
  for (size_t i = 0; i < good_.size(); ++i) {
    flip_bit(i);
    EXPECT_THAT(refusal([&] { load(path_); }), testing::HasSubstr(path_)) << "damage at byte " << i;
    flip_bit(i);
  }
  EXPECT_EQ(read_bytes(path_), good_);
}

TEST_F(Damage, OneFlippedBitInTheHashFileIsRefused) {
  const std::string hash_path = folder_.path("step-000000000001.sha256");
  const std::string hash = read_bytes(hash_path);
  for (size_t i = 0; i < hash.size(); ++i) {
    std::string bytes = hash;
    bytes[i] = static_cast<char>(bytes[i] ^ (1 << (i % 8)));
    write_bytes(hash_path, bytes);
    EXPECT_NE(refusal([&] { load(path_); }), "") << "damage at byte " << i;
  }
}

// With a correct hash, only the checksums of the HDF5 structure and the loader's own checks find damage. The parser may
// accept a flip that changes nothing it reads; it must not crash, hang or throw anything but Error(kCheckpoint).
TEST_F(Damage, FlippedStructureBytesBehindAFittingHashNeverCrash) {
  size_t refused = 0;
  constexpr size_t kStride = 7;
  for (size_t i = 0; i < good_.size(); i += kStride) {
    flip_bit(i);
    sign(path_);
    refused += refusal([&] { load(path_); }).empty() ? 0 : 1;
    flip_bit(i);
  }
  EXPECT_GT(refused, good_.size() / kStride / 3);
}

}  // namespace
}  // namespace neoloom::checkpoint
