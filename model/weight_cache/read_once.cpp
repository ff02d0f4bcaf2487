// SPDX-License-Identifier: Apache-2.0
#include "model/weight_cache/read_once.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <future>
#include <memory>
#include <mutex>

#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/hash.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::model {

namespace {

using core::ErrorKind;

constexpr size_t kPieceBytes = size_t{4} << 20;
constexpr size_t kSlots = 8;
constexpr size_t kPieceAlignmentBytes = 64;
constexpr size_t kReadAheadBytes = size_t{32} << 20;
constexpr size_t kDropBytes = size_t{64} << 20;

/// Passes pieces from one thread, which fills them, to two that follow, each at its own pace. A slot is filled again
/// when both have left it.
class Ring {
 public:
  enum Follower : size_t { kHasher, kUser, kFollowers };

  struct Slot {
    FilePiece piece;
    std::vector<std::byte> memory = std::vector<std::byte>(kPieceBytes + kPieceAlignmentBytes);
    std::byte* begin() {
      void* address = memory.data();
      size_t space = memory.size();
      return static_cast<std::byte*>(std::align(kPieceAlignmentBytes, kPieceBytes, address, space));
    }
  };

  /// Returns a slot to fill, or null when another thread has given up.
  Slot* to_fill() {
    return wait([this] { return filled_ - std::min(left_[kHasher], left_[kUser]) < kSlots; }, filled_);
  }
  void fill() {
    change([this] { ++filled_; });
  }
  void finish() {
    change([this] { finished_ = true; });
  }

  /// Returns the next piece, or null after the last one and when another thread has given up.
  const FilePiece* next(Follower follower) {
    const Slot* slot = wait([&] { return left_[follower] < filled_ || finished_; }, left_[follower]);
    return slot == nullptr || left_[follower] == filled_ ? nullptr : &slot->piece;
  }
  void leave(Follower follower) {
    change([&] { ++left_[follower]; });
  }

  void give_up() {
    change([this] { given_up_ = true; });
  }

 private:
  template <typename Ready>
  Slot* wait(const Ready& ready, const size_t& position) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return given_up_ || ready(); });
    return given_up_ ? nullptr : &slots_[position % kSlots];
  }
  template <typename Change>
  void change(const Change& apply) {
    {
      const std::lock_guard lock(mutex_);
      apply();
    }
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::array<Slot, kSlots> slots_;
  size_t filled_ = 0;
  std::array<size_t, kFollowers> left_ = {};
  bool finished_ = false;
  bool given_up_ = false;
};

class Source {
 public:
  Source(const std::string& path, size_t expected_bytes, CachePages pages)
      : path_(path), size_bytes_(expected_bytes), pages_(pages) {
    file_ = core::open_regular(path, ErrorKind::kWeights);
    struct stat status {};
    core::require(::fstat(file_.get(), &status) == 0, ErrorKind::kWeights, "cannot stat {}: {}", path,
                  std::strerror(errno));
    core::require(static_cast<size_t>(status.st_size) == size_bytes_, ErrorKind::kWeights,
                  "{} has {} bytes, a moment ago it had {}: it is being changed", path, status.st_size, size_bytes_);
  }

  void read(std::byte* to, size_t offset, size_t count) {
    ask_ahead(offset + count);
    while (count > 0) {
      const ssize_t got = ::pread(file_.get(), to, count, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      core::require(got >= 0, ErrorKind::kWeights, "cannot read {}: {}", path_, std::strerror(errno));
      core::require(got > 0, ErrorKind::kWeights, "{} ends after {} bytes, a moment ago it had {}: it is being changed",
                    path_, offset, size_bytes_);
      to += got;
      offset += static_cast<size_t>(got);
      count -= static_cast<size_t>(got);
    }
    if (pages_ == CachePages::kDrop) drop_behind(offset);
  }

 private:
  // These calls are only advice: a failure costs time or memory of the system, nothing else.

  /// Makes the system fetch what comes next while this piece is hashed and used: far more than it would by itself.
  void ask_ahead(size_t offset) {
    if (asked_ >= std::min(offset + kReadAheadBytes / 2, size_bytes_)) return;
    asked_ = std::max(asked_, offset);
    (void)::posix_fadvise(file_.get(), static_cast<off_t>(asked_), static_cast<off_t>(kReadAheadBytes),
                          POSIX_FADV_WILLNEED);
    asked_ += kReadAheadBytes;
  }

  void drop_behind(size_t offset) {
    if (offset < size_bytes_ && offset - dropped_ < kDropBytes) return;
    (void)::posix_fadvise(file_.get(), static_cast<off_t>(dropped_), static_cast<off_t>(offset - dropped_),
                          POSIX_FADV_DONTNEED);
    dropped_ = offset;
  }

  std::string path_;
  size_t size_bytes_;
  CachePages pages_;
  size_t asked_ = 0;
  size_t dropped_ = 0;
  core::UniqueFd file_;
};

void fill(Ring& ring, Source& source, const std::vector<FilePart>& parts, bool hashes) {
  for (size_t index = 0; index < parts.size(); ++index) {
    const FilePart& part = parts[index];
    if (!hashes && !part.used) continue;
    const size_t step = kPieceBytes / part.unit_bytes * part.unit_bytes;
    for (size_t begin = part.begin_byte; begin < part.end_byte; begin += step) {
      Ring::Slot* slot = ring.to_fill();
      if (slot == nullptr) return;
      const size_t count = std::min(step, part.end_byte - begin);
      source.read(slot->begin(), begin, count);
      slot->piece = {index, begin - part.begin_byte, slot->begin(), count};
      ring.fill();
    }
  }
  ring.finish();
}

void follow(Ring& ring, Ring::Follower follower, const std::function<void(const FilePiece&)>& use) {
  while (const FilePiece* piece = ring.next(follower)) {
    use(*piece);
    ring.leave(follower);
  }
}

/// Wraps `work` so that an exception in one thread ends the others, too: none waits for it.
template <typename Work>
auto guarded(Ring& ring, Work work) {
  return [&ring, work = std::move(work)] {
    try {
      work();
    } catch (...) {
      ring.give_up();
      throw;
    }
  };
}

}  // namespace

std::string read_once(const std::string& path, const std::vector<FilePart>& parts, bool hashes, CachePages pages,
                      const std::function<void(const FilePiece&)>& use) {
  Source source(path, parts.empty() ? 0 : parts.back().end_byte, pages);
  Ring ring;
  core::Sha256 hash;
  const auto run = [&ring](auto work) { return std::async(std::launch::async, guarded(ring, std::move(work))); };
  std::future<void> filler = run([&] { fill(ring, source, parts, hashes); });
  std::future<void> hasher = run([&] {
    follow(ring, Ring::kHasher, [&](const FilePiece& piece) {
      if (hashes) hash.add(piece.data, piece.size_bytes);
    });
  });
  guarded(ring, [&] {
    follow(ring, Ring::kUser, [&](const FilePiece& piece) {
      if (parts[piece.part].used) use(piece);
    });
  })();
  filler.get();
  hasher.get();
  return hashes ? hash.hex() : "";
}

}  // namespace neoloom::model
