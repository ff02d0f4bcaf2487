// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Allocator.h>

#include <cstdint>

namespace neoloom::model {

/// Counts the bytes of tensors on LibTorch's meta device, which have a shape and a type but no values, so that a run
/// there measures memory without computing. Operators without a meta kernel throw; memory_ledger.cpp adds some that
/// LibTorch's C++ lacks.
/// While it exists, it is the meta device's allocator for the whole process: only one may exist at a time. It must
/// outlive the tensors that are made meanwhile.
class MemoryLedger final : public c10::Allocator {
 public:
  MemoryLedger() : before_(c10::GetAllocator(at::kMeta)) { c10::SetAllocator(at::kMeta, this); }
  ~MemoryLedger() override { c10::SetAllocator(at::kMeta, before_); }
  MemoryLedger(const MemoryLedger&) = delete;
  MemoryLedger& operator=(const MemoryLedger&) = delete;

  int64_t live_bytes() const { return live_bytes_; }
  int64_t peak_bytes() const { return peak_bytes_; }

  c10::DataPtr allocate(size_t bytes) override;
  void copy_data(void* /*to*/, const void* /*from*/, size_t /*bytes*/) const override {}

 private:
  struct Entry {
    MemoryLedger& ledger;
    int64_t bytes;
  };
  static void release(void* entry);

  c10::Allocator* before_;
  int64_t live_bytes_ = 0;
  int64_t peak_bytes_ = 0;
};

}  // namespace neoloom::model
