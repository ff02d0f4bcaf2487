// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

namespace neoloom::model {

/// Bytes of tensors that are alive, and the most there were: a program that runs without its values.
class Tally {
 public:
  /// Stands for a tensor; its bytes are alive as long as it is.
  class Held {
   public:
    Held() = default;
    Held(Tally& tally, int64_t bytes) : tally_(&tally), bytes_(bytes) { tally.add(bytes); }
    Held(Held&& other) noexcept
        : tally_(std::exchange(other.tally_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Held& operator=(Held&& other) noexcept {
      std::swap(tally_, other.tally_);
      std::swap(bytes_, other.bytes_);
      other.release();
      return *this;
    }
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    ~Held() { release(); }

    int64_t bytes() const { return bytes_; }

   private:
    void release() {
      if (tally_ != nullptr) tally_->add(-bytes_);
      tally_ = nullptr;
      bytes_ = 0;
    }
    Tally* tally_ = nullptr;
    int64_t bytes_ = 0;
  };

  Held hold(int64_t bytes) { return {*this, bytes}; }
  /// A tensor that is alive for a moment, beside the others.
  void touch(int64_t bytes) { peak_ = std::max(peak_, live_ + bytes); }

  int64_t live_bytes() const { return live_; }
  int64_t peak_bytes() const { return peak_; }

 private:
  void add(int64_t bytes) {
    live_ += bytes;
    peak_ = std::max(peak_, live_);
  }
  int64_t live_ = 0;
  int64_t peak_ = 0;
};

}  // namespace neoloom::model
