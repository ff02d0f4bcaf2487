// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace neoloom::core {

/// SHA-256 over bytes fed in pieces.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  Sha256& add(const void* bytes, size_t count_bytes);
  Sha256& add(std::string_view text) { return add(text.data(), text.size()); }
  /// Adds the length too, so that ("ab","c") and ("a","bc") differ.
  Sha256& add_field(std::string_view text);
  /// Returns 64 lower-case hex digits. Nothing may be called afterwards.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(const void* bytes, size_t count_bytes);
inline std::string sha256_hex(std::string_view text) { return sha256_hex(text.data(), text.size()); }

/// SHA-1, 40 lower-case hex digits: only for the names of git's blobs.
std::string sha1_hex(std::string_view text);

/// SHA-256 of a file's bytes. Throws Error(kind kData) when it cannot be read.
std::string sha256_of_file(const std::string& path);

/// 64-bit xxHash (XXH3) of memory: fast, for comparing replicas, not for storage.
uint64_t xxh3(const void* bytes, size_t count_bytes, uint64_t seed = 0);

}  // namespace neoloom::core
