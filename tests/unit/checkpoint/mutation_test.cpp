// SPDX-License-Identifier: Apache-2.0
// Tests checkpoints with changed content and a correct hash: HDF5's parser crashes on about one in a hundred of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <csignal>
#include <cstdlib>
#include <random>

#include "runtime/checkpoint/directory.h"
#include "runtime/checkpoint/trial.h"
#include "runtime/core/error.h"
#include "tests/unit/checkpoint/fixtures.h"

namespace neoloom::checkpoint {
namespace {

using testing::HasSubstr;

constexpr uint64_t kLimitBytes = uint64_t{512} << 20;

TEST(Trial, WorkThatEndsOrSaysAnErrorHasNotFailed) {
  EXPECT_EQ(failure_in_trial([] {}, kLimitBytes), "");
  EXPECT_EQ(failure_in_trial([] { core::fail(core::ErrorKind::kCheckpoint, "an answer"); }, kLimitBytes), "");
}

TEST(Trial, ACrashOrTooMuchMemoryTakesNothingAlong) {
  EXPECT_EQ(failure_in_trial([] { std::raise(SIGSEGV); }, kLimitBytes), "ended by signal 11");
  EXPECT_EQ(failure_in_trial([] { std::abort(); }, kLimitBytes), "ended by signal 6");
  EXPECT_THAT(failure_in_trial([] { std::vector<char>(size_t{1} << 40, 'x'); }, kLimitBytes), HasSubstr("memory"));
}

/// Changes some bytes anywhere: single bits, small and large numbers, runs of one value, pieces from elsewhere in the
/// file.
void mutate(std::string& bytes, std::mt19937_64& random) {
  for (uint64_t left = 1 + random() % 4; left > 0; --left) {
    const size_t at = random() % bytes.size();
    const size_t count = std::min<size_t>(1 + random() % 16, bytes.size() - at);
    switch (random() % 4) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << (random() % 8)));
        break;
      case 1:
        bytes[at] = static_cast<char>(random());
        break;
      case 2:
        bytes.replace(at, count, count, random() % 2 == 0 ? '\xFF' : '\0');
        break;
      default:
        bytes.replace(at, count, bytes.substr(random() % (bytes.size() - count), count));
    }
  }
}

/// Returns Bob Jenkins' lookup3 of some bytes, with which HDF5 ends its structures.
uint32_t lookup3(std::string_view bytes) {
  uint32_t a = 0xdeadbeef + static_cast<uint32_t>(bytes.size());
  uint32_t b = a;
  uint32_t c = a;
  const auto step = [](uint32_t& left, uint32_t minus, int bits, uint32_t& right, uint32_t plus) {
    left -= minus;
    left ^= std::rotl(minus, bits);
    right += plus;
  };
  const auto last = [](uint32_t& value, uint32_t other, int bits) { value = (value ^ other) - std::rotl(other, bits); };
  const auto add = [&](std::string_view block) {
    std::array<unsigned char, 12> padded{};
    std::copy(block.begin(), block.end(), padded.begin());
    const auto word = [&](size_t at) {
      return uint32_t{padded[at]} | uint32_t{padded[at + 1]} << 8 | uint32_t{padded[at + 2]} << 16 |
             uint32_t{padded[at + 3]} << 24;
    };
    a += word(0);
    b += word(4);
    c += word(8);
  };
  for (; bytes.size() > 12; bytes.remove_prefix(12)) {
    add(bytes.substr(0, 12));
    step(a, c, 4, c, b);
    step(b, a, 6, a, c);
    step(c, b, 8, b, a);
    step(a, c, 16, c, b);
    step(b, a, 19, a, c);
    step(c, b, 4, b, a);
  }
  if (bytes.empty()) return c;
  add(bytes);
  last(c, b, 14);
  last(a, c, 11);
  last(b, a, 25);
  last(c, b, 16);
  last(a, c, 4);
  last(b, a, 14);
  last(c, b, 24);
  return c;
}

/// Gives the superblock and all object headers of version 2 the checksums that their bytes have now, so that HDF5 looks
/// at what was changed.
void mend_checksums(std::string& bytes) {
  const auto mend = [&](size_t begin, size_t count) {
    if (begin + count + 4 > bytes.size()) return;
    const uint32_t sum = lookup3(std::string_view(bytes).substr(begin, count));
    for (size_t i = 0; i < 4; ++i) bytes[begin + count + i] = static_cast<char>(sum >> (8 * i));
  };
  constexpr size_t kSuperblockBytes = 44;
  mend(0, kSuperblockBytes);
  for (size_t at = bytes.find("OHDR"); at != std::string::npos; at = bytes.find("OHDR", at + 4)) {
    if (at + 32 > bytes.size()) break;
    const auto flags = static_cast<unsigned char>(bytes[at + 5]);
    const size_t front = 6 + ((flags & 0x20U) != 0 ? 16 : 0) + ((flags & 0x10U) != 0 ? 4 : 0);
    const size_t width = size_t{1} << (flags & 3U);
    size_t messages = 0;
    for (size_t i = 0; i < std::min<size_t>(width, 4); ++i) {
      messages |= size_t{static_cast<unsigned char>(bytes[at + front + i])} << (8 * i);
    }
    mend(at, front + width + messages);
  }
}

/// Returns how many mutations to try: $NEOLOOM_MUTATIONS, or 400.
int mutations() {
  const char* wanted = std::getenv("NEOLOOM_MUTATIONS");
  return wanted == nullptr ? 400 : std::atoi(wanted);
}

TEST(Mutations, BehindAFittingHashAreLoadedOrRefusedWithTheFilesName) {
  const ScratchFolder folder;
  const std::string path = Directory(folder.path()).publish(make_state(1)).path;
  const std::string good = read_bytes(path);
  std::mt19937_64 random(20240904);
  std::string same = good;
  mend_checksums(same);
  ASSERT_TRUE(same == good) << "the checksums are not those of HDF5";
  int refused = 0;
  int failed = 0;
  for (int i = 0; i < mutations(); ++i) {
    std::string bytes = good;
    mutate(bytes, random);
    if (i % 4 != 0) mend_checksums(bytes);
    write_bytes(path, bytes);
    sign(path);
    const std::string refusal_text = refusal([&] { load(path); });
    EXPECT_TRUE(refusal_text.empty() || refusal_text.find(path) != std::string::npos) << refusal_text;
    refused += refusal_text.empty() ? 0 : 1;
    failed += refusal_text.find("the HDF5 library cannot read it") == std::string::npos ? 0 : 1;
  }
  EXPECT_GT(refused, mutations() / 4);
  RecordProperty("refused", refused);
  RecordProperty("failures_of_hdf5", failed);
}

}  // namespace
}  // namespace neoloom::checkpoint
