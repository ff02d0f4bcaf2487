// SPDX-License-Identifier: Apache-2.0
#include "model/panel_products.h"

#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>

#include <algorithm>

namespace neoloom::model {

namespace {

constexpr int64_t kTileRows = 128;
// Sums of this many products are formed before they meet the rest: longer chains round worse, shorter ones cost more.
constexpr int64_t kBlockDepth = 768;

// Rows of x that meet all panels before the next ones do, so that they stay in a core's second-level cache: as many as
// take this much, but enough of them to be worth reading a panel for.
constexpr int64_t kCachedBytes = int64_t{1} << 20;
constexpr int64_t kFewestCachedRows = 256;

enum class Start { kKeep, kZero, kBias };

/// One product; `multiply_columns` does a panel's width of it and is called from many threads.
class PanelProduct {
 public:
  PanelProduct(at::Tensor& y, const at::Tensor& x, const RightSide& right, const at::Tensor& bias, Start start)
      : x_(x),
        right_(right),
        start_(start),
        y_(y.mutable_data_ptr<float>()),
        bias_(bias.defined() ? bias.const_data_ptr<float>() : nullptr),
        rows_(x.size(0)),
        y_stride_(y.stride(0)),
        x_stride_(x.stride(0)),
        pairs_(x.scalar_type() == at::kBFloat16),
        copies_(right.values.scalar_type() != x.scalar_type() || right.values.dim() == 2) {}

  void run() const {
    const int64_t panels = (right_.n + kPanelColumns - 1) / kPanelColumns;
    const int64_t tiles = std::max<int64_t>((rows_ + kTileRows - 1) / kTileRows, 1);
    const int64_t wanted = 4 * static_cast<int64_t>(at::get_num_threads());
    // Few panels for many threads: the rows are shared out as well.
    const int64_t groups = std::min(std::max((wanted + panels - 1) / panels, groups_in_cache()), tiles);
    at::parallel_for(0, panels * groups, 1, [&](int64_t begin, int64_t end) {
      at::Tensor copy;
      if (copies_) copy = at::empty({kBlockDepth, kPanelColumns}, x_.options());
      for (int64_t task = begin; task < end; ++task) {
        const int64_t group = task / panels;
        multiply_columns(task % panels, tiles * group / groups * kTileRows,
                         std::min(tiles * (group + 1) / groups * kTileRows, rows_), copy);
      }
      at::native::cpublas::brgemm_release(pairs_);
    });
  }

 private:
  /// Products in fp32 take longer than reading x again does.
  int64_t groups_in_cache() const {
    if (!pairs_) return 1;
    const int64_t fitting = kCachedBytes / (right_.k * static_cast<int64_t>(sizeof(at::BFloat16)));
    const int64_t cached = std::max(fitting, kFewestCachedRows);
    return (rows_ + cached - 1) / cached;
  }

  void multiply_columns(int64_t panel, int64_t begin_row, int64_t end_row, at::Tensor& copy) const {
    const int64_t column = panel * kPanelColumns;
    const int64_t columns = std::min(kPanelColumns, right_.n - column);
    if (start_ == Start::kBias) {
      for (int64_t row = begin_row; row < end_row; ++row) {
        std::copy_n(bias_ + column, columns, y_ + row * y_stride_ + column);
      }
    }
    for (int64_t k = 0; k < right_.k; k += kBlockDepth) {
      const int64_t depth = std::min(kBlockDepth, right_.k - k);
      const Block block = right_block(panel, k, depth, columns, copy);
      const bool add = start_ != Start::kZero || k > 0;
      for (int64_t row = begin_row; row < end_row; row += kTileRows) {
        multiply_tile(row, std::min(kTileRows, end_row - row), column, columns, k, depth, block, add);
      }
    }
  }

  struct Block {
    const void* values;
    int64_t stride;
  };

  /// `depth` rows of a panel from row k on, in the type of x.
  Block right_block(int64_t panel, int64_t k, int64_t depth, int64_t columns, at::Tensor& copy) const {
    const at::Tensor& values = right_.values;
    const bool plain = values.dim() == 2;
    const int64_t offset =
        plain ? k * values.stride(0) + panel * kPanelColumns : panel * values.stride(0) + k * kPanelColumns;
    const int64_t stride = plain ? values.stride(0) : kPanelColumns;
    if (!copies_) return {static_cast<const char*>(values.const_data_ptr()) + offset * values.element_size(), stride};
    copy.narrow(0, 0, depth)
        .narrow(1, 0, columns)
        .copy_(values.as_strided({depth, columns}, {stride, 1}, values.storage_offset() + offset));
    return {copy.const_data_ptr(), kPanelColumns};
  }

  void multiply_tile(int64_t row, int64_t rows, int64_t column, int64_t columns, int64_t k, int64_t depth,
                     const Block& block, bool add) const {
    float* const out = y_ + row * y_stride_ + column;
    const int64_t left = row * x_stride_ + k;
    if (pairs_) {
      at::native::cpublas::brgemm(rows, columns, depth, x_stride_, block.stride, y_stride_, add,
                                  x_.const_data_ptr<at::BFloat16>() + left,
                                  static_cast<const at::BFloat16*>(block.values), out, /*is_vnni=*/true);
    } else {
      at::native::cpublas::brgemm(rows, columns, depth, x_stride_, block.stride, y_stride_, add,
                                  x_.const_data_ptr<float>() + left, static_cast<const float*>(block.values), out,
                                  /*is_vnni=*/false);
    }
  }

  const at::Tensor& x_;
  const RightSide& right_;
  Start start_;
  float* y_;
  const float* bias_;
  int64_t rows_, y_stride_, x_stride_;
  bool pairs_;
  // Blocks of the right side are copied: to widen them, or because the rows of a matrix that is no panel lie far apart
  // (at a multiple of 4 KiB they share few sets of the cache, which makes a third of the speed).
  bool copies_;
};

}  // namespace

void add_panel_product(at::Tensor& y, const at::Tensor& x, const RightSide& right) {
  PanelProduct(y, x, right, {}, Start::kKeep).run();
}

void panel_product(at::Tensor& y, const at::Tensor& x, const RightSide& right, const at::Tensor& bias) {
  PanelProduct(y, x, right, bias, bias.defined() ? Start::kBias : Start::kZero).run();
}

}  // namespace neoloom::model
