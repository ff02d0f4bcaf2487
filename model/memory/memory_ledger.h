// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

namespace neoloom::model {

/// Bytes of tensors that are alive, and the most there were: a program that runs without its values.
class MemoryLedger {
 public:
  /// Stands for a tensor; its bytes are alive as long as it is.
  class Allocation {
   public:
    Allocation() = default;
    Allocation(MemoryLedger& ledger, int64_t bytes) : ledger_(&ledger), bytes_(bytes) { ledger.add(bytes); }
    Allocation(Allocation&& other) noexcept
        : ledger_(std::exchange(other.ledger_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Allocation& operator=(Allocation&& other) noexcept {
      std::swap(ledger_, other.ledger_);
      std::swap(bytes_, other.bytes_);
      other.release();
      return *this;
    }
    Allocation(const Allocation&) = delete;
    Allocation& operator=(const Allocation&) = delete;
    ~Allocation() { release(); }

    int64_t bytes() const { return bytes_; }

   private:
    void release() {
      if (ledger_ != nullptr) ledger_->add(-bytes_);
      ledger_ = nullptr;
      bytes_ = 0;
    }
    MemoryLedger* ledger_ = nullptr;
    int64_t bytes_ = 0;
  };

  Allocation hold(int64_t bytes) { return {*this, bytes}; }
  /// A tensor that is alive for a moment, beside the others.
  void note_transient(int64_t bytes) { peak_ = std::max(peak_, live_ + bytes); }

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
