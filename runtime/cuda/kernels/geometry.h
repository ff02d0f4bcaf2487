// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

namespace neoloom::cuda::kernels {

inline constexpr int kWarp = 32;
inline constexpr int kMaxThreads = 256;       // of a block
inline constexpr int kMaxValues = 16;         // of a row, in the registers of one thread
inline constexpr int kPack = 8;               // neighbours that one thread reads at once: 16 bytes of 16-bit values
inline constexpr int64_t kMaxBlocks = 65536;  // further rows: a block takes several

/// How a kernel is started. A block works on one row at a time.
struct Geometry {
  int pack = 1;        // 1 or kPack
  int rounds = 1;      // packs of a row per thread, at most; rounds * pack <= kMaxValues
  int threads = 0;     // of a block; a multiple of kWarp
  int64_t blocks = 0;  // 0: nothing to start
};

/// For kernels that hold a row in the registers of a block. `aligned`: every row of every tensor begins at a multiple
/// of 16 bytes. Empty: the rows are too long for one block.
std::optional<Geometry> row_geometry(int64_t rows, int64_t columns, bool aligned);

/// For kernels that treat each value alone. Threads take packs in turns.
Geometry elementwise_geometry(int64_t rows, int64_t columns, bool aligned);

}  // namespace neoloom::cuda::kernels
