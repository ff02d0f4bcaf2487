// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/packed_gemm.h"

#include <ATen/ops/empty.h>
#include <ATen/record_function.h>

#include <algorithm>

#include "model/cpu/elementwise.h"
#include "model/cpu/gemm_microkernel.h"
#include "model/cpu/gemm_microkernel_avx2.h"
#include "model/cpu/parallel_tasks.h"

namespace neoloom::model {

namespace {

constexpr int64_t kBf16TileDepth = 2048;  // rounding of the sum is negligible beside that of 16-bit inputs

// The rows of x are cut into groups that stay in a core's L2 cache while they are multiplied with all column tiles. A
// group has at most this size, but enough rows to be worth reading a column tile for.
constexpr int64_t kCachedBytes = int64_t{1} << 20;
constexpr int64_t kFewestCachedRows = 256;

Dtype dtype_of(const at::Tensor& values) {
  if (values.scalar_type() == at::kFloat) return Dtype::kFloat32;
  return values.scalar_type() == at::kHalf ? Dtype::kFloat16 : Dtype::kBFloat16;
}

/// Gives access to the tiles of a matrix; null when there is none.
struct TiledMatrix {
  char* values = nullptr;
  int64_t stride = 0;         // elements from one row to the next
  int64_t packed_stride = 0;  // from 64 columns to the next
  bool is_bf16 = false;

  explicit TiledMatrix(const at::Tensor& tensor) {
    if (!tensor.defined()) return;
    // Casts away const, because one type serves matrices that are read and matrices that are written.
    values = static_cast<char*>(tensor.data_ptr());
    const bool in_tiles = tensor.dim() == 3;
    stride = tensor.stride(in_tiles ? 1 : 0);
    packed_stride = in_tiles ? tensor.stride(0) : kPackedColumns;
    is_bf16 = tensor.scalar_type() == at::kBFloat16;
  }
  bool present() const { return values != nullptr; }
  float* fp32_at(int64_t row, int64_t column_tile) const { return at<float>(row, column_tile); }
  uint16_t* bf16_at(int64_t row, int64_t column_tile) const { return at<uint16_t>(row, column_tile); }

 private:
  template <typename Value>
  Value* at(int64_t row, int64_t column_tile) const {
    return present() ? reinterpret_cast<Value*>(values) + row * stride + column_tile * packed_stride : nullptr;
  }
};

/// Computes one GEMM. A task of a thread is a group of rows and a span of column tiles.
class PackedGemm {
 public:
  PackedGemm(const at::Tensor& x, const GemmB& right, const Epilogue& terms, const EpilogueOutputs& ends)
      : x_(x),
        right_(right),
        bias_(terms.bias.defined() ? terms.bias.const_data_ptr<float>() : nullptr),
        scale_(terms.scale.defined() ? terms.scale.const_data_ptr<float>() : nullptr),
        residual_(terms.residual),
        low_rank_u_(terms.low_rank_u),
        low_rank_v_(terms.low_rank_v),
        rank_(terms.low_rank_u.defined() ? terms.low_rank_u.size(1) : 0),
        y_(ends.y),
        through_(ends.through.values),
        activated_(ends.activated),
        keeps_(ends.activated.defined() ? ends.keeps : ends.through.keeps),
        rows_(x.size(0)),
        bf16_(x.scalar_type() == at::kBFloat16),
        microkernel_n_(!bf16_ && microkernel(Dtype::kFloat32) == Microkernel::kAvx2 ? avx2::kMicrokernelN
                                                                                    : kPackedColumns),
        copies_(right.values.scalar_type() != x.scalar_type() || right.values.dim() == 2 ||
                microkernel_n_ < kPackedColumns) {}

  void run() const {
    const int64_t column_tiles = (right_.n + kPackedColumns - 1) / kPackedColumns;
    const int64_t tiles = std::max<int64_t>((rows_ + kTileRows - 1) / kTileRows, 1);
    const int64_t wanted = 4 * static_cast<int64_t>(at::get_num_threads());
    // With few column tiles for many threads, the rows are split too.
    const int64_t groups = std::min(std::max((wanted + column_tiles - 1) / column_tiles, groups_in_cache()), tiles);
    // Where k is cut into parts, a task has several column tiles: they all read one part of x's columns while it is in
    // the cache. Elsewhere a task has one.
    const int64_t spans = in_parts() ? std::min(column_tiles, (wanted + groups - 1) / groups) : column_tiles;
    parallel_tasks(groups * spans, [&](const auto& next) {
      Scratch scratch;
      if (copies_) scratch.b = at::empty({kTileDepth, kPackedColumns}, x_.options());
      if (!sums_in_y()) scratch.sums = at::empty({kTileRows, kPackedColumns}, x_.options().dtype(at::kFloat));
      for (int64_t task = next(); task >= 0; task = next()) {
        const int64_t group = task / spans;
        const int64_t span = task % spans;
        multiply({column_tiles * span / spans, column_tiles * (span + 1) / spans},
                 {tiles * group / groups * kTileRows, std::min(tiles * (group + 1) / groups * kTileRows, rows_)},
                 scratch);
      }
      release_microkernel(bf16_ ? Dtype::kBFloat16 : Dtype::kFloat32);
    });
  }

 private:
  /// Holds a thread's own memory.
  struct Scratch {
    at::Tensor b;     // a copied tile of the right side
    at::Tensor sums;  // sums of a tile, unless they are formed in y
  };
  struct Tile {
    int64_t row, rows, column_tile, columns;
    float* sums;
    int64_t stride;
  };
  struct Depth {
    int64_t k, count;
  };
  struct BTile {
    const void* values;
    int64_t stride;
  };
  struct Range {
    int64_t begin, end;
  };

  /// Returns how many groups of rows the cache asks for. In fp32 that is one: computing takes longer than reading x
  /// again.
  int64_t groups_in_cache() const {
    if (!bf16_) return 1;
    const int64_t depth = std::min(kBf16TileDepth, right_.k);
    const int64_t fitting = kCachedBytes / (depth * static_cast<int64_t>(sizeof(at::BFloat16)));
    const int64_t cached = std::max(fitting, kFewestCachedRows);
    return (rows_ + cached - 1) / cached;
  }

  bool in_parts() const { return bf16_ && right_.k > kBf16TileDepth; }

  bool sums_in_y() const { return y_.present() && !y_.is_bf16; }

  void multiply(Range column_tiles, Range rows, const Scratch& scratch) const {
    const auto for_each_tile = [&](int64_t column_tile, const auto& body) {
      for_each_tile_of_rows(rows.begin, rows.end,
                            [&](int64_t row, int64_t count) { body(tile_at(row, count, column_tile, scratch)); });
    };
    if (!sums_in_y()) {  // the sums of a tile cannot wait for the next depth
      for (int64_t column_tile = column_tiles.begin; column_tile < column_tiles.end; ++column_tile) {
        for_each_tile(column_tile, [&](const Tile& tile) {
          for_each_depth([&](Depth depth) { compute_tile(tile, depth, b_tile(column_tile, depth, scratch)); });
        });
      }
      return;
    }
    for_each_depth([&](Depth depth) {  // all column tiles read x's columns of one depth while those are in the cache
      for (int64_t column_tile = column_tiles.begin; column_tile < column_tiles.end; ++column_tile) {
        const BTile b = b_tile(column_tile, depth, scratch);
        for_each_tile(column_tile, [&](const Tile& tile) { compute_tile(tile, depth, b); });
      }
    });
  }

  template <typename Body>
  void for_each_depth(Body body) const {
    const int64_t step = bf16_ ? kBf16TileDepth : kTileDepth;
    for (int64_t k = 0; k < right_.k; k += step) body(Depth{k, std::min(step, right_.k - k)});
  }

  Tile tile_at(int64_t row, int64_t rows, int64_t column_tile, const Scratch& scratch) const {
    const int64_t columns = std::min(kPackedColumns, right_.n - column_tile * kPackedColumns);
    if (sums_in_y()) return {row, rows, column_tile, columns, y_.fp32_at(row, column_tile), y_.stride};
    return {row, rows, column_tile, columns, static_cast<float*>(scratch.sums.data_ptr()), kPackedColumns};
  }

  /// Returns rows of a column tile in the type of x.
  BTile b_tile(int64_t column_tile, Depth depth, const Scratch& scratch) const {
    const at::Tensor& values = right_.values;
    const bool plain = values.dim() == 2;
    const int64_t offset = plain ? depth.k * values.stride(0) + column_tile * kPackedColumns
                                 : column_tile * values.stride(0) + depth.k * kPackedColumns;
    const int64_t stride = plain ? values.stride(0) : kPackedColumns;
    const char* const from = static_cast<const char*>(values.const_data_ptr()) + offset * values.element_size();
    if (!copies_) return {from, stride};
    const int64_t columns = std::min(kPackedColumns, right_.n - column_tile * kPackedColumns);
    // The copy is fp32 and uses AVX2, whichever microkernel runs: bfloat16 is never copied, and a CPU with AVX-512 has
    // AVX2.
    avx2::copy_tile({from, dtype_of(values), stride, depth.count, columns}, microkernel_n_,
                    scratch.b.mutable_data_ptr<float>());
    return {scratch.b.const_data_ptr(), microkernel_n_};
  }

  void compute_tile(const Tile& tile, Depth depth, BTile b) const {
    if (depth.k == 0) start(tile);
    if (bf16_) {
      multiply_columns<at::BFloat16>(tile, depth, b);
    } else {
      multiply_columns<float>(tile, depth, b);
    }
    if (depth.k + depth.count == right_.k) finish(tile);
  }

  template <typename Element>
  void multiply_columns(const Tile& tile, Depth depth, BTile b) const {
    const Operand<const Element> left = {x_.const_data_ptr<Element>() + tile.row * x_.stride(0) + depth.k,
                                         x_.stride(0)};
    const auto* const right = static_cast<const Element*>(b.values);
    for (int64_t column = 0; column < tile.columns; column += microkernel_n_) {
      multiply_tile({tile.rows, std::min(microkernel_n_, tile.columns - column), depth.count}, left,
                    {right + column * depth.count, b.stride}, {tile.sums + column, tile.stride},
                    starts() || depth.k > 0);
    }
  }

  /// Whether the sums start from bias and residual. With a scale these come last.
  bool starts() const { return scale_ == nullptr && (bias_ != nullptr || residual_.present()); }

  static const float* columns_at(const float* row, const Tile& tile) {
    return row == nullptr ? nullptr : row + tile.column_tile * kPackedColumns;
  }
  cpu::Rows residual_at(const Tile& tile) const {
    return {residual_.fp32_at(tile.row, tile.column_tile), residual_.stride, tile.rows, tile.columns};
  }

  void start(const Tile& tile) const {
    if (starts()) cpu::sum_rows(columns_at(bias_, tile), residual_at(tile), tile.sums, tile.stride);
  }

  void finish(const Tile& tile) const {
    if (scale_ != nullptr) {
      cpu::scale_and_shift(columns_at(scale_, tile), columns_at(bias_, tile), residual_at(tile), tile.sums,
                           tile.stride);
    }
    if (rank_ > 0) {
      multiply_tile({tile.rows, tile.columns, rank_}, {low_rank_u_.fp32_at(tile.row, 0), low_rank_u_.stride},
                    {low_rank_v_.fp32_at(0, tile.column_tile), low_rank_v_.stride}, {tile.sums, tile.stride},
                    /*add=*/true);
    }
    const cpu::Rows sums = {tile.sums, tile.stride, tile.rows, tile.columns};
    if (y_.is_bf16) {
      finish_in(sums, y_.bf16_at(tile.row, tile.column_tile), activated_.bf16_at(tile.row, tile.column_tile),
                through_.bf16_at(tile.row, tile.column_tile));
    } else {
      finish_in(sums, y_.fp32_at(tile.row, tile.column_tile), activated_.fp32_at(tile.row, tile.column_tile),
                through_.fp32_at(tile.row, tile.column_tile));
    }
  }

  /// Applies gelu or its backward pass to the sums and stores the results. Pointers are null where there is no such
  /// matrix.
  template <typename Value>
  void finish_in(const cpu::Rows& sums, Value* y, Value* activated, const Value* through) const {
    if (activated != nullptr && keeps_ == GeluKeeps::kSlope) {
      cpu::gelu_and_slope(sums, activated, activated_.stride, y, y_.stride);
      return;
    }
    if (activated != nullptr) cpu::gelu(sums, activated, activated_.stride);
    if (through == nullptr) {
      if (!sums_in_y()) cpu::copy_rows(sums, y, y_.stride);
    } else if (keeps_ == GeluKeeps::kSlope) {
      cpu::scale_rows(sums, through, through_.stride, y, y_.stride);
    } else {
      cpu::gelu_backward(sums, through, through_.stride, y, y_.stride);
    }
  }

  const at::Tensor& x_;
  const GemmB& right_;
  const float* bias_;
  const float* scale_;
  TiledMatrix residual_, low_rank_u_, low_rank_v_;
  int64_t rank_;  // of the low-rank term; 0: none
  TiledMatrix y_, through_, activated_;
  GeluKeeps keeps_;
  int64_t rows_;
  bool bf16_;
  int64_t microkernel_n_;  // contiguous columns of a copied tile
  // Tiles of the right side are copied: to convert them, or because the microkernel reads few columns at once, or
  // because the rows of a matrix that is not packed lie far apart. At a multiple of 4 KiB such rows share few sets of
  // the cache, which costs two thirds of the speed.
  bool copies_;
};

}  // namespace

std::vector<int64_t> activation_tiles_shape(int64_t m, int64_t n) {
  return {(n + kPackedColumns - 1) / kPackedColumns, m, kPackedColumns};
}

at::Tensor rows_of_tiles(const at::Tensor& values, int64_t n) {
  if (values.dim() == 2) return values;
  return values.transpose(0, 1).reshape({values.size(1), values.size(0) * kPackedColumns}).narrow(1, 0, n).contiguous();
}

void packed_gemm(const at::Tensor& x, const GemmB& right, const Epilogue& terms, const EpilogueOutputs& ends) {
  RECORD_USER_SCOPE("packed GEMM");
  PackedGemm(x, right, terms, ends).run();
}

}  // namespace neoloom::model
