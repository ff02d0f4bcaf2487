// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "runtime/core/error.h"
#include "runtime/core/progress.h"

namespace neoloom::core {

inline constexpr size_t kChecksumDigits = 32;

/// Returns XXH3-128 over all bytes of an open file, as 32 hex digits. The file holds its own checksum: the 32 bytes at
/// `digits_at` are hashed as '-'. Reads in pieces, on several threads where there are several cores, since a mapping
/// would count as resident memory. The calling thread tells `progress` how far all are.
/// Throws: Error(kind) naming `path` when the file cannot be read or is shorter than `size_bytes`.
std::string file_checksum(int descriptor, uint64_t size_bytes, uint64_t digits_at, const std::string& path,
                          ErrorKind kind, ByteProgress progress = {});

}  // namespace neoloom::core
