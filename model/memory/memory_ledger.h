// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Allocator.h>

#include <cstdint>

namespace neoloom::model {

/// Counts the bytes of tensors on LibTorch's meta device, which have a shape and a type but no values: a program that
/// runs there is measured instead of computed. Operators without a kernel for that device throw; memory_ledger.cpp has
/// those that LibTorch's C++ lacks.
/// While it lives it is the meta device's allocator, for the whole process: one at a time. It must outlive the tensors
/// that are made under it.
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
