// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "model/cpu/packed_weights.h"

namespace neoloom::model {

/// The right side [k, n] of a product: packed weights (3 or 4 dimensions, see packed_shape) or the matrix itself (2
/// dimensions, rows contiguous; not for 16-bit products).
struct GemmB {
  at::Tensor values;
  int64_t k = 0;
  int64_t n = 0;
};

/// Sums of this many products are formed before they meet the rest: longer chains round worse, shorter ones cost more.
inline constexpr int64_t kTileDepth = 768;

inline constexpr int64_t kTileRows = 128;

/// Calls body(row, rows) for tiles of the rows [begin, end). The microkernel is compiled, and kept, for each number of
/// rows: whole tiles, multiples of 16 and less than 16 are few, whatever lengths the data has.
template <typename Body>
void for_each_tile_of_rows(int64_t begin, int64_t end, Body body) {
  constexpr int64_t kStep = 16;
  for (int64_t row = begin, rows = 0; row < end; row += rows) {
    rows = std::min(kTileRows, end - row);
    if (rows < kTileRows && rows >= kStep) rows = rows / kStep * kStep;
    body(row, rows);
  }
}

/// Elements of a thread's copy of one depth of a panel.
inline constexpr int64_t kPackedCopyElements = kTileDepth * kPackedColumns;

/// What joins a product [m, n]; each may be undefined. All fp32, columns contiguous.
struct Epilogue {
  at::Tensor bias{};                      // [n]
  at::Tensor residual{};                  // [m, n]; may be where the sum goes
  at::Tensor low_rank_u{}, low_rank_v{};  // [m, r], [r, n]: their product, of few r
};

/// What the backward pass of gelu_new reads: where its output is computed anew, its input, else its slope, which costs
/// little beside the output.
enum class GeluKeeps { kInput, kSlope };
struct SavedGelu {
  at::Tensor values{};  // gelu_new's input, or gelu_new' of it; undefined: none
  GeluKeeps keeps = GeluKeeps::kInput;
};

/// What becomes of the sum [m, n] of a product and its terms while it is in the cache. Columns contiguous. "In tiles":
/// [ceil(n / 64), m, 64], so that the tiles of what only goes from product to product lie in one piece.
struct EpilogueOutputs {
  at::Tensor y{};                       // fp32 or bfloat16; [m, n], or in tiles
  SavedGelu through{};                  // in tiles, in the type of y: y = sum * gelu_new'; undefined: y = sum
  at::Tensor activated{};               // gelu_new(sum), in the type of y; undefined: not wanted
  GeluKeeps keeps = GeluKeeps::kInput;  // where `activated` is wanted: y = sum, or y = gelu_new'(sum)
};

std::vector<int64_t> activation_tiles_shape(int64_t m, int64_t n);

/// [m, n], contiguous, of a matrix in tiles, or of one that is in rows already.
at::Tensor rows_of_tiles(const at::Tensor& values, int64_t n);

/// The sum of x [m, k] * right and the terms, to `ends`: fp32 accumulation in a fixed order over k, whatever the number
/// of rows and threads. x holds fp32, or bfloat16 when `right` holds pairs of rows (then k even, padded with zeros). A
/// 16-bit B of fp32 products is converted block by block; fp32 products need an fp32 y. CPU only.
void packed_gemm(const at::Tensor& x, const GemmB& right, const Epilogue& terms, const EpilogueOutputs& ends);

}  // namespace neoloom::model
