// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/low_rank_gemm.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "model/cpu/elementwise.h"
#include "model/cpu/gemm_microkernel.h"
#include "model/cpu/packed_gemm.h"
#include "model/cpu/packed_weights.h"

namespace neoloom::model {

namespace {

constexpr int64_t kSlabColumns = 64;

bool has_microkernel(const at::Tensor& x) { return x.is_cpu() && has_packed_gemm(Dtype::kFloat32); }

int64_t tiles_of(int64_t rows) { return (rows + kTileRows - 1) / kTileRows; }

/// Splits the fp32 columns of `right` into two bfloat16 parts, high | low. Each half is filled up to whole vectors,
/// rows are in pairs.
at::Tensor split_in_two(const at::Tensor& right, int64_t half) {
  const at::Tensor high = right.to(at::kBFloat16);
  at::Tensor pairs = at::zeros({right.size(0) / 2, 2 * half, 2}, right.options().dtype(at::kBFloat16));
  const auto put = [&](const at::Tensor& part, int64_t begin) {
    pairs.narrow(1, begin, right.size(1)).copy_(part.view({-1, 2, right.size(1)}).transpose(1, 2));
  };
  put(high, 0);
  put(right.sub(high.to(at::kFloat)).to(at::kBFloat16), half);
  return pairs;
}

at::Tensor bf16_gemm(const at::Tensor& x, const at::Tensor& right) {
  constexpr int64_t kVector = 16;
  const int64_t rank = right.size(1);
  const int64_t half = (rank + kVector - 1) / kVector * kVector;
  const at::Tensor pairs = split_in_two(right.contiguous(), half);
  const int64_t rows = x.size(0);
  const int64_t depth = x.size(1);
  at::Tensor y = at::empty({rows, rank}, right.options());
  at::parallel_for(0, tiles_of(rows), 1, [&](int64_t begin, int64_t end) {
    const at::Tensor sums = at::empty({kTileRows, 2 * half}, right.options());
    auto* const tile = static_cast<float*>(sums.data_ptr());
    for_each_tile_of_rows(begin * kTileRows, std::min(end * kTileRows, rows), [&](int64_t row, int64_t here) {
      multiply_tile({here, 2 * half, depth}, {x.const_data_ptr<at::BFloat16>() + row * x.stride(0), x.stride(0)},
                    {pairs.const_data_ptr<at::BFloat16>(), 2 * half}, {tile, 2 * half}, /*add=*/false);
      float* const out = y.mutable_data_ptr<float>() + row * rank;
      for (int64_t i = 0; i < here; ++i) {
        for (int64_t j = 0; j < rank; ++j) out[i * rank + j] = tile[2 * half * i + j] + tile[2 * half * i + half + j];
      }
    });
    release_microkernel(Dtype::kBFloat16);
  });
  return y;
}

at::Tensor fp32_gemm(const at::Tensor& x, const at::Tensor& right) {
  const at::Tensor packed = right.contiguous();
  const int64_t rank = right.size(1);
  const int64_t rows = x.size(0);
  const int64_t depth = x.size(1);
  at::Tensor y = at::empty({rows, rank}, right.options());
  at::parallel_for(0, tiles_of(rows), 1, [&](int64_t begin, int64_t end) {
    for_each_tile_of_rows(begin * kTileRows, std::min(end * kTileRows, rows), [&](int64_t row, int64_t here) {
      for (int64_t k = 0; k < depth; k += kTileDepth) {
        multiply_tile({here, rank, std::min(kTileDepth, depth - k)},
                      {x.const_data_ptr<float>() + row * x.stride(0) + k, x.stride(0)},
                      {packed.const_data_ptr<float>() + k * rank, rank},
                      {y.mutable_data_ptr<float>() + row * rank, rank}, /*add=*/k > 0);
      }
    });
    release_microkernel(Dtype::kFloat32);
  });
  return y;
}

/// Sets tile [kTileRows, kSlabColumns] to rows in fp32, then zeros.
void copy_tile(const at::Tensor& x, int64_t row, int64_t rows, int64_t column, int64_t columns, float* tile) {
  const int64_t offset = row * x.stride(0) + column;
  if (x.scalar_type() == at::kBFloat16) {
    const auto* const values = static_cast<const uint16_t*>(x.const_data_ptr()) + offset;
    cpu::copy_rows(cpu::LowpRows{values, x.stride(0), rows, columns}, tile, kSlabColumns);
  } else {
    cpu::copy_rows(cpu::Rows{x.const_data_ptr<float>() + offset, x.stride(0), rows, columns}, tile, kSlabColumns);
  }
  std::fill(tile + rows * kSlabColumns, tile + kTileRows * kSlabColumns, 0.0F);
}

/// Returns left [n, r] transposed tile by tile and zero-padded: [tiles, r, kTileRows]. oneDNN compiles a kernel for
/// each row stride, so the stride must not depend on n.
at::Tensor transposed_tiles(const at::Tensor& left) {
  const int64_t rank = left.size(1);
  at::Tensor transposed = at::zeros({tiles_of(left.size(0)), rank, kTileRows}, left.options());
  auto* const to = transposed.mutable_data_ptr<float>();
  const auto from = left.accessor<float, 2>();
  for (int64_t row = 0; row < left.size(0); ++row) {
    for (int64_t i = 0; i < rank; ++i) to[(row / kTileRows * rank + i) * kTileRows + row % kTileRows] = from[row][i];
  }
  return transposed;
}

}  // namespace

at::Tensor low_rank_gemm(const at::Tensor& x, const at::Tensor& right) {
  if (x.scalar_type() == at::kBFloat16) return bf16_gemm(x, right);
  return has_microkernel(x) ? fp32_gemm(x, right) : at::mm(x, right);
}

at::Tensor low_rank_outer_product(const at::Tensor& left, const at::Tensor& x) {
  if (!has_microkernel(x)) return at::mm(left.t(), x.to(at::kFloat));
  const int64_t rank = left.size(1);
  const int64_t rows = x.size(0);
  const int64_t columns = x.size(1);
  const at::Tensor transposed = transposed_tiles(left);
  at::Tensor y = at::empty({rank, columns}, left.options());
  at::parallel_for(0, (columns + kSlabColumns - 1) / kSlabColumns, 1, [&](int64_t begin, int64_t end) {
    const at::Tensor scratch = at::empty({kTileRows, kSlabColumns}, left.options());
    auto* const tile = static_cast<float*>(scratch.data_ptr());
    for (int64_t column = begin * kSlabColumns; column < std::min(end * kSlabColumns, columns);
         column += kSlabColumns) {
      const int64_t width = std::min(kSlabColumns, columns - column);
      for (int64_t row = 0; row < rows; row += kTileRows) {
        copy_tile(x, row, std::min(kTileRows, rows - row), column, width, tile);
        multiply_tile({rank, width, kTileRows}, {transposed.const_data_ptr<float>() + row * rank, kTileRows},
                      {tile, kSlabColumns}, {y.mutable_data_ptr<float>() + column, columns}, /*add=*/row > 0);
      }
    }
    release_microkernel(Dtype::kFloat32);
  });
  return y;
}

}  // namespace neoloom::model
