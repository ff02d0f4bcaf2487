// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "runtime/core/error.h"

namespace neoloom::core {

inline constexpr size_t kChecksumDigits = 32;

/// XXH3 over all bytes of an open file, as 32 hex digits. The file holds its own checksum: its 32 bytes at `digits_at`
/// count as '-'. Read in pieces, by several threads where there are several cores: a mapping would count as memory of
/// the process. Throws: Error(kind) naming `path` when the file cannot be read or is shorter than `size_bytes`.
std::string file_checksum(int descriptor, uint64_t size_bytes, uint64_t digits_at, const std::string& path,
                          ErrorKind kind);

}  // namespace neoloom::core
