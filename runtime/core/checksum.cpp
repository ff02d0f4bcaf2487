// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/checksum.h"

#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <future>
#include <thread>
#include <vector>

namespace neoloom::core {
namespace {

// Part of the format: the checksum is that of the sums of blocks of this size.
constexpr uint64_t kTileBytes = uint64_t{4} << 20;
constexpr unsigned kMostThreads = 4;

struct File {
  int descriptor;
  uint64_t size_bytes;
  uint64_t digits_at;
  const std::string& path;
  ErrorKind kind;
};

void read_block(const File& file, uint64_t begin, std::vector<char>& block) {
  block.resize(std::min(kTileBytes, file.size_bytes - begin));
  for (size_t done = 0; done < block.size();) {
    const ssize_t got =
        ::pread(file.descriptor, block.data() + done, block.size() - done, static_cast<off_t>(begin + done));
    if (got < 0 && errno == EINTR) continue;
    require(got >= 0, file.kind, "cannot read {}: {}", file.path, std::strerror(errno));
    require(got > 0, file.kind, "{} became shorter while it was read", file.path);
    done += static_cast<size_t>(got);
  }
}

void blank_digits(const File& file, uint64_t begin, std::vector<char>& block) {
  const uint64_t from = std::max(begin, file.digits_at);
  const uint64_t to = std::min(begin + block.size(), file.digits_at + kChecksumDigits);
  if (from < to) std::memset(block.data() + (from - begin), '-', to - from);
}

}  // namespace

std::string file_checksum(int descriptor, uint64_t size_bytes, uint64_t digits_at, const std::string& path,
                          ErrorKind kind) {
  const File file{descriptor, size_bytes, digits_at, path, kind};
  std::vector<uint64_t> sums((size_bytes + kTileBytes - 1) / kTileBytes);
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    std::vector<char> block;
    for (size_t index = next++; index < sums.size(); index = next++) {
      const uint64_t begin = index * kTileBytes;
      read_block(file, begin, block);
      blank_digits(file, begin, block);
      sums[index] = XXH3_64bits(block.data(), block.size());
    }
  };
  const size_t threads =
      std::min<size_t>({sums.size(), kMostThreads, std::max(1U, std::thread::hardware_concurrency())});
  std::vector<std::future<void>> others;
  for (size_t i = 1; i < threads; ++i) others.push_back(std::async(std::launch::async, work));
  work();
  for (std::future<void>& other : others) other.get();
  sums.push_back(size_bytes);
  const XXH128_hash_t whole = XXH3_128bits(sums.data(), sums.size() * sizeof(uint64_t));
  return fmt::format("{:016x}{:016x}", whole.high64, whole.low64);
}

}  // namespace neoloom::core
