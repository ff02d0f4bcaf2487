// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace neoloom::metrics {

/// Follows a metrics.jsonl that grows: takes each line once, as soon as it is whole.
/// Thread: one thread at a time.
class EventFollower {
 public:
  static constexpr size_t kMostBytes = size_t{16} << 20;

  /// The file need not exist yet.
  explicit EventFollower(std::string path) : path_(std::move(path)) {}

  /// Calls `take` with the lines that are new, of at most `most_bytes` bytes, without their ends. When the file was cut
  /// or replaced, it calls `anew` first: what was taken before is void, and it begins at the first line again. A line
  /// that is longer than `most_bytes` is left out. A file that is gone changes nothing.
  void poll(const std::function<void(std::string_view line)>& take, const std::function<void()>& anew,
            size_t most_bytes = kMostBytes);

  /// Whether the last poll found the file.
  bool there() const { return there_; }
  /// Bytes of whole lines that the last poll left for the next one, or of a line that is being written.
  int64_t unread_bytes() const { return size_ - offset_; }
  /// Whether the next poll has more to take at once.
  bool has_more() const { return has_more_; }
  int64_t size_bytes() const { return size_; }

 private:
  bool goes_on(int descriptor) const;

  std::string path_;
  bool there_ = false;
  bool has_more_ = false;
  bool skipping_ = false;  // in a line that is too long
  int64_t size_ = 0;
  int64_t offset_ = 0;  // where the first line begins that was not taken
  std::string tail_;    // the last bytes before offset_: a file with others there is another one
};

}  // namespace neoloom::metrics
