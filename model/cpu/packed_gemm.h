// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "model/cpu/packed_weights.h"

namespace neoloom::model {

/// Operand B [k, n] of a GEMM: packed weights (3 or 4 dimensions, see packed_shape), or the matrix itself (2
/// dimensions, rows contiguous; not for 16-bit GEMMs).
struct GemmB {
  at::Tensor values;
  int64_t k = 0;
  int64_t n = 0;
};

/// Tile size in k: partial sums of this many terms are added to the result. A larger one rounds worse, a smaller one
/// costs more.
inline constexpr int64_t kTileDepth = 768;

inline constexpr int64_t kTileRows = 128;

/// Calls body(row, rows) for tiles of the rows [begin, end). oneDNN compiles and caches a microkernel for each number
/// of rows. The only ones are kTileRows, multiples of 16 and those below 16, so they are few whatever lengths the data
/// has.
template <typename Body>
void for_each_tile_of_rows(int64_t begin, int64_t end, Body body) {
  constexpr int64_t kStep = 16;
  for (int64_t row = begin, rows = 0; row < end; row += rows) {
    rows = std::min(kTileRows, end - row);
    if (rows < kTileRows && rows >= kStep) rows = rows / kStep * kStep;
    body(row, rows);
  }
}

/// Elements of a thread's buffer for one packed tile, [kTileDepth, kPackedColumns].
inline constexpr int64_t kPackedCopyElements = kTileDepth * kPackedColumns;

/// Terms added to a GEMM's result [m, n], which is first multiplied by `scale`; each may be undefined. All fp32,
/// columns contiguous.
struct Epilogue {
  at::Tensor bias{};                      // [n]
  at::Tensor residual{};                  // [m, n]; may alias the output where there is no scale
  at::Tensor low_rank_u{}, low_rank_v{};  // [m, r], [r, n]: adds u v; small r
  at::Tensor scale{};                     // [n]
};

/// What forward keeps for gelu_new's backward pass: its input, from which the output can be recomputed, or its slope
/// gelu_new', which is cheap to compute along with the output.
enum class GeluKeeps { kInput, kSlope };
struct SavedGelu {
  at::Tensor values{};  // gelu_new's input x, or gelu_new'(x); undefined: none
  GeluKeeps keeps = GeluKeeps::kInput;
};

/// What the epilogue writes of the sum [m, n] of a GEMM and its terms while a tile is in the cache. Columns contiguous.
/// "In tiles" is the layout [ceil(n / 64), m, 64], for tensors that only GEMMs read: each tile is contiguous.
struct EpilogueOutputs {
  at::Tensor y{};                       // fp32 or bfloat16; [m, n], or in tiles
  SavedGelu through{};                  // in tiles, in the type of y: y = sum * gelu_new'; undefined: y = sum
  at::Tensor activated{};               // receives gelu_new(sum), in the type of y; undefined: not written
  GeluKeeps keeps = GeluKeeps::kInput;  // if `activated` is defined: y = sum, or y = gelu_new'(sum)
};

std::vector<int64_t> activation_tiles_shape(int64_t m, int64_t n);

/// Returns the matrix [m, n], contiguous, of `values` in tiles or in rows.
at::Tensor rows_of_tiles(const at::Tensor& values, int64_t n);

/// Computes x [m, k] * right + terms, and writes it as `ends` says. Accumulates in fp32, in an order over k that
/// depends on neither rows nor threads. x is fp32, or bfloat16 when `right` has interleaved pairs of rows (k is then
/// even, padded with zeros). An fp32 GEMM converts a 16-bit B tile by tile, and needs an fp32 y. CPU only.
void packed_gemm(const at::Tensor& x, const GemmB& right, const Epilogue& terms, const EpilogueOutputs& ends);

}  // namespace neoloom::model
