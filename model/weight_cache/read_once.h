// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace neoloom::model {

/// A part of a file. The parts of a list are in file order and cover the file without gaps.
struct FilePart {
  size_t begin_byte = 0;
  size_t end_byte = 0;
  size_t unit_bytes = 1;  // pieces end at multiples of it, counted from begin_byte
  bool used = false;      // false: it is only hashed
};

/// Some bytes of a part, aligned for any type.
struct FilePiece {
  size_t part = 0;         // index into the list
  size_t offset_byte = 0;  // into the part
  const std::byte* data = nullptr;
  size_t size_bytes = 0;
};

/// Whether a file's pages stay in the page cache.
enum class CachePages { kKeep, kDrop };

/// Reads a file once, sequentially. Calls `use` with the pieces of used parts, in order and on the calling thread;
/// meanwhile one thread hashes all bytes and another reads ahead. Returns the SHA-256. With `hashes` false, returns ""
/// and does not read unused parts.
/// Memory: eight pieces of 4 MiB. Throws: Error(kWeights) when the file cannot be read or does not end where the parts
/// do; what `use` throws.
std::string read_once(const std::string& path, const std::vector<FilePart>& parts, bool hashes, CachePages pages,
                      const std::function<void(const FilePiece&)>& use);

}  // namespace neoloom::model
