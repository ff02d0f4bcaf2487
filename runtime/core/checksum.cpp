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

// The file formats fix this size: the checksum of a file is that of the checksums of its chunks.
constexpr uint64_t kChunkBytes = uint64_t{4} << 20;
constexpr unsigned kMostThreads = 4;

struct File {
  int descriptor;
  uint64_t size_bytes;
  uint64_t digits_at;
  const std::string& path;
  ErrorKind kind;
};

void read_chunk(const File& file, uint64_t begin, std::vector<char>& chunk) {
  chunk.resize(std::min(kChunkBytes, file.size_bytes - begin));
  for (size_t done = 0; done < chunk.size();) {
    const ssize_t got =
        ::pread(file.descriptor, chunk.data() + done, chunk.size() - done, static_cast<off_t>(begin + done));
    if (got < 0 && errno == EINTR) continue;
    require(got >= 0, file.kind, "cannot read {}: {}", file.path, std::strerror(errno));
    require(got > 0, file.kind, "{} became shorter while it was read", file.path);
    done += static_cast<size_t>(got);
  }
}

void blank_digits(const File& file, uint64_t begin, std::vector<char>& chunk) {
  const uint64_t from = std::max(begin, file.digits_at);
  const uint64_t to = std::min(begin + chunk.size(), file.digits_at + kChecksumDigits);
  if (from < to) std::memset(chunk.data() + (from - begin), '-', to - from);
}

}  // namespace

std::string file_checksum(int descriptor, uint64_t size_bytes, uint64_t digits_at, const std::string& path,
                          ErrorKind kind, ByteProgress progress) {
  const File file{descriptor, size_bytes, digits_at, path, kind};
  std::vector<uint64_t> sums((size_bytes + kChunkBytes - 1) / kChunkBytes);
  std::atomic<size_t> next = 0;
  const auto work = [&](bool tells) {
    std::vector<char> chunk;
    for (size_t index = next++; index < sums.size(); index = next++) {
      const uint64_t begin = index * kChunkBytes;
      read_chunk(file, begin, chunk);
      blank_digits(file, begin, chunk);
      sums[index] = XXH3_64bits(chunk.data(), chunk.size());
      if (tells) progress.set(next * kChunkBytes);
    }
  };
  const size_t threads =
      std::min<size_t>({sums.size(), kMostThreads, std::max(1U, std::thread::hardware_concurrency())});
  std::vector<std::future<void>> others;
  for (size_t i = 1; i < threads; ++i) others.push_back(std::async(std::launch::async, work, false));
  work(true);
  for (std::future<void>& other : others) other.get();
  progress.set(size_bytes);
  sums.push_back(size_bytes);
  const XXH128_hash_t whole = XXH3_128bits(sums.data(), sums.size() * sizeof(uint64_t));
  return fmt::format("{:016x}{:016x}", whole.high64, whole.low64);
}

}  // namespace neoloom::core
