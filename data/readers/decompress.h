// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "runtime/core/progress.h"

namespace neoloom::data {

enum class Compression { kNone, kGzip, kZstd };

/// Returns how a file with these first bytes is compressed.
Compression compression_of(std::string_view bytes);

/// Takes the next piece of a text, at most 1 MiB. Returns false to end the reading.
using TakePiece = std::function<bool(std::string_view piece)>;

/// Decompresses `bytes` piece by piece, in memory that does not grow with the file. Several gzip members or zstd frames
/// are one text, as for gzip -d and zstd -d. Verifies the checksums in them. `path` names the file in messages.
/// `progress`: of `bytes`.
/// Throws: Error(kData) for a file that is cut, damaged or followed by something else.
void decompress(const std::string& path, std::string_view bytes, Compression compression, const TakePiece& take,
                core::ByteProgress progress = {});

}  // namespace neoloom::data
