// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <utility>

namespace neoloom::core {

/// Move-only owner of a C handle. Traits: `using Type`, `static Type invalid()`, `static void close(Type) noexcept`.
template <typename Traits>
class UniqueHandle {
 public:
  using Type = typename Traits::Type;
  UniqueHandle() = default;
  explicit UniqueHandle(Type handle) : handle_(handle) {}
  ~UniqueHandle() { reset(); }
  UniqueHandle(UniqueHandle&& other) noexcept : handle_(other.release()) {}
  UniqueHandle& operator=(UniqueHandle&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  UniqueHandle(const UniqueHandle&) = delete;
  UniqueHandle& operator=(const UniqueHandle&) = delete;

  Type get() const { return handle_; }
  bool valid() const { return handle_ != Traits::invalid(); }
  Type release() { return std::exchange(handle_, Traits::invalid()); }
  void reset(Type handle = Traits::invalid()) {
    if (valid()) Traits::close(handle_);
    handle_ = handle;
  }

 private:
  Type handle_ = Traits::invalid();
};

/// Traits of a handle that is a pointer: null is invalid, and Close(pointer) ends it.
template <typename Pointer, auto Close>
struct PointerTraits {
  using Type = Pointer;
  static Type invalid() { return nullptr; }
  static void close(Type handle) noexcept { Close(handle); }
};

struct FdTraits {
  using Type = int;
  static Type invalid() { return -1; }
  static void close(Type handle) noexcept { ::close(handle); }
};
using UniqueFd = UniqueHandle<FdTraits>;

}  // namespace neoloom::core
