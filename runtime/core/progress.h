// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

namespace neoloom::core {

/// Is told how much of `total` a long piece of work has done, in the unit of whoever made it. Call it often; an empty
/// one says nothing.
using Progress = std::function<void(int64_t done, int64_t total)>;

/// Begins to show a piece of work ("tokenising", in "kB"), until the last copy of the result is destroyed. May be
/// empty.
using BeginWork = std::function<Progress(const std::string& what, const std::string& unit)>;
/// The same, with a Progress that may be empty.
inline Progress begin_work(const BeginWork& begin, const std::string& what, const std::string& unit) {
  return begin ? begin(what, unit) : nullptr;
}

/// Counts bytes, and tells a Progress of them in units of 1,000.
class ByteProgress {
 public:
  ByteProgress() = default;
  ByteProgress(Progress progress, uint64_t total_bytes) : progress_(std::move(progress)), total_bytes_(total_bytes) {}
  void add(uint64_t bytes) { set(done_bytes_ + bytes); }
  void set(uint64_t done_bytes) {
    constexpr uint64_t kUnitBytes = 1000;
    done_bytes_ = std::min(done_bytes, total_bytes_);
    if (!progress_) return;
    progress_(static_cast<int64_t>(done_bytes_ / kUnitBytes), static_cast<int64_t>(total_bytes_ / kUnitBytes));
  }

 private:
  Progress progress_;
  uint64_t total_bytes_ = 0;
  uint64_t done_bytes_ = 0;
};

}  // namespace neoloom::core
