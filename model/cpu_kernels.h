// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Loops over plain fp32 memory that ATen does in several passes or with a slow tanh. Each is compiled for several
// instruction sets; products and sums are not contracted, so that all of them give the same bits.
namespace neoloom::model::cpu {

/// gelu_new: y = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
void gelu(const float* x, float* y, int64_t count);

/// The same as bfloat16 values.
void gelu(const float* x, uint16_t* y, int64_t count);

/// dx = dy * gelu_new'(x); dx may be dy.
void gelu_backward(const float* dy, const float* x, float* dx, int64_t count);

/// The same as bfloat16 values.
void gelu_backward(const float* dy, const float* x, uint16_t* dx, int64_t count);

/// In place: softmax over row[begin, end), zero elsewhere in [0, width).
void softmax_range(float* row, int64_t begin, int64_t end, int64_t width);

/// In place in `dp`: p * (dp - sum(p * dp)) over [begin, end), zero elsewhere in [0, width).
void softmax_backward_range(const float* p, float* dp, int64_t begin, int64_t end, int64_t width);

/// out [columns, rows] = transposed in [rows, columns]; the strides count from one row to the next.
void transpose(const float* in, int64_t in_stride, int64_t rows, int64_t columns, float* out, int64_t out_stride);

/// Rows that lie `stride` elements apart, e.g. those of one head: [count, width].
struct Rows {
  const float* values = nullptr;
  int64_t stride = 0;
  int64_t count = 0;
  int64_t width = 0;
};

/// out [count, width], its rows `out_stride` apart, = rows.
void copy_rows(const Rows& rows, float* out, int64_t out_stride);

/// The same as bfloat16 values, rounded to nearest even.
void copy_rows(const Rows& rows, uint16_t* out, int64_t out_stride);

/// out [ceil(count / 2), width]: each element holds the bfloat16 values of two rows, the upper row in the low half; a
/// missing last row is zeros.
void interleave_rows(const Rows& rows, uint32_t* out);

/// Returns logsumexp(row) - row[target]. With `scale` not 0, row becomes scale * (softmax(row) - onehot(target)).
float cross_entropy_row(float* row, int64_t width, int64_t target, float scale);

}  // namespace neoloom::model::cpu
