// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/kernels/geometry.h"

#include <algorithm>

namespace neoloom::cuda::kernels {
namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int pack_of(int64_t columns, bool aligned) { return aligned && columns % kPack == 0 ? kPack : 1; }

}  // namespace

std::optional<Geometry> row_geometry(int64_t rows, int64_t columns, bool aligned) {
  Geometry result;
  result.pack = pack_of(columns, aligned);
  const int64_t packs = columns / result.pack;
  // As many threads as packs where a block holds them, else as few rounds as possible of equal length.
  const int64_t rounds = std::max<int64_t>(1, divide_up(packs, kMaxThreads));
  if (columns <= 0 || rounds * result.pack > kMaxValues) return std::nullopt;
  result.rounds = static_cast<int>(rounds);
  result.threads = static_cast<int>(divide_up(divide_up(packs, rounds), kWarp) * kWarp);
  result.blocks = std::min(rows, kMaxBlocks);
  return result;
}

Geometry elementwise_geometry(int64_t rows, int64_t columns, bool aligned) {
  Geometry result;
  result.pack = pack_of(columns, aligned);
  result.threads = kMaxThreads;
  result.blocks = std::min(divide_up(rows * columns / result.pack, kMaxThreads), kMaxBlocks);
  return result;
}

}  // namespace neoloom::cuda::kernels
