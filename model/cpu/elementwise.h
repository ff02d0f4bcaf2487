// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Loops for what ATen does in several passes or with a slow tanh. Each is compiled for several instruction sets.
// Multiplications and additions are contracted to FMA only where the source says so, so that all instruction sets give
// the same bits.
namespace neoloom::model::cpu {

/// Rows that lie `stride` elements apart, e.g. those of one head: [count, width]. `Value`: float, or uint16_t for the
/// bits of bfloat16.
template <typename Value>
struct RowsOf {
  Value* values = nullptr;
  int64_t stride = 0;
  int64_t count = 0;
  int64_t width = 0;
};
using Rows = RowsOf<const float>;
using LowpRows = RowsOf<const uint16_t>;

/// gelu_new: y = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). `y_stride`: elements between rows of y.
void gelu(const Rows& x, float* y, int64_t y_stride);
void gelu(const Rows& x, uint16_t* y, int64_t y_stride);
void gelu(const LowpRows& x, uint16_t* y, int64_t y_stride);

/// The same, and slope = gelu_new'(x). x may alias y or slope.
void gelu_and_slope(const Rows& x, float* y, int64_t y_stride, float* slope, int64_t slope_stride);
void gelu_and_slope(const Rows& x, uint16_t* y, int64_t y_stride, uint16_t* slope, int64_t slope_stride);

/// out = rows * factor, element-wise. factor and out have the count and width of rows; out may alias rows.
void scale_rows(const Rows& rows, const float* factor, int64_t factor_stride, float* out, int64_t out_stride);
void scale_rows(const Rows& rows, const uint16_t* factor, int64_t factor_stride, uint16_t* out, int64_t out_stride);

/// sums = sums * scale + bias + rows, in place, with the count and width of rows. scale and bias [width]; bias, or the
/// values of rows, may be null (zeros).
void scale_and_shift(const float* scale, const float* bias, const Rows& rows, float* sums, int64_t stride);

/// dx = dy * gelu_new'(x). x and dx have the count and width of dy; dx may alias dy.
void gelu_backward(const Rows& dy, const float* x, int64_t x_stride, float* dx, int64_t dx_stride);
void gelu_backward(const Rows& dy, const uint16_t* x, int64_t x_stride, uint16_t* dx, int64_t dx_stride);

/// out = bias + rows, with the count and width of rows. bias or rows may have null values (zeros); out may alias rows.
void sum_rows(const float* bias, const Rows& rows, float* out, int64_t out_stride);

/// LayerNorm of rows: y = (x - mean) rstd weight + bias, with rstd = 1 / sqrt(variance + epsilon) of each row.
struct LayerNorm {
  const float* weight = nullptr;  // [width]
  const float* bias = nullptr;
  double epsilon = 0.0;
};
/// Writes y (row stride y_stride) and the rows' statistics [count].
void layer_norm(const LayerNorm& norm, const Rows& x, float* y, int64_t y_stride, float* mean, float* rstd);
void layer_norm(const LayerNorm& norm, const Rows& x, uint16_t* y, int64_t y_stride, float* mean, float* rstd);

/// sum [count, width] += the gradient of x, from dy and what layer_norm wrote.
void add_layer_norm_gradient(const LayerNorm& norm, const Rows& dy, const Rows& x, const float* mean, const float* rstd,
                             float* sum, int64_t sum_stride);

/// In place: softmax over row[begin, end), zero elsewhere in [0, width).
void softmax_range(float* row, int64_t begin, int64_t end, int64_t width);

/// In place in `dp`: p * (dp - sum(p * dp)) over [begin, end), zero elsewhere in [0, width).
void softmax_backward_range(const float* p, float* dp, int64_t begin, int64_t end, int64_t width);

/// out [columns, rows] = transpose of in [rows, columns]. Strides are row strides.
void transpose(const float* in, int64_t in_stride, int64_t rows, int64_t columns, float* out, int64_t out_stride);

/// out [count, width] = rows.
void copy_rows(const Rows& rows, float* out, int64_t out_stride);

/// The same to bfloat16 values, rounded to nearest even.
void copy_rows(const Rows& rows, uint16_t* out, int64_t out_stride);

/// The same from bfloat16 values.
void copy_rows(const LowpRows& rows, float* out, int64_t out_stride);
void copy_rows(const LowpRows& rows, uint16_t* out, int64_t out_stride);

/// out [ceil(count / 2), width]: each element holds the values of two rows, the first row in the low half. A missing
/// last row is zeros.
void interleave_rows(const LowpRows& rows, uint32_t* out);

/// Returns logsumexp(row) - row[target]. With `scale` not 0, row becomes scale * (softmax(row) - onehot(target)).
float cross_entropy_row(float* row, int64_t width, int64_t target, float scale);

}  // namespace neoloom::model::cpu
