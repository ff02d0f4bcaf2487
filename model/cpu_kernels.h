// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Loops over plain fp32 memory that ATen does in several passes or with a slow tanh. Each is compiled for several
// instruction sets; products and sums are not contracted, so that all of them give the same bits.
namespace neoloom::model::cpu {

/// gelu_new: y = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
void gelu(const float* x, float* y, int64_t count);

/// dx = dy * gelu_new'(x); dx may be dy.
void gelu_backward(const float* dy, const float* x, float* dx, int64_t count);

/// In place: softmax over row[begin, end), zero elsewhere in [0, width).
void softmax_range(float* row, int64_t begin, int64_t end, int64_t width);

/// In place in `dp`: p * (dp - sum(p * dp)) over [begin, end), zero elsewhere in [0, width).
void softmax_backward_range(const float* p, float* dp, int64_t begin, int64_t end, int64_t width);

/// out [columns, rows] = transposed in [rows, columns]; the strides count from one row to the next.
void transpose(const float* in, int64_t in_stride, int64_t rows, int64_t columns, float* out, int64_t out_stride);

/// To nearest even; `out` holds bfloat16 values.
void round_to_bfloat16(const float* in, uint16_t* out, int64_t count);

/// out[i] = first[i] and second[i] as two bfloat16 values, side by side; a null `second`: zeros.
void interleave_bfloat16(const float* first, const float* second, uint32_t* out, int64_t count);

/// Returns logsumexp(row) - row[target]. With `scale` not 0, row becomes scale * (softmax(row) - onehot(target)).
float cross_entropy_row(float* row, int64_t width, int64_t target, float scale);

}  // namespace neoloom::model::cpu
