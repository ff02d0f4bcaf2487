// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/elementwise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

// Compiles a function for several instruction sets. The loader picks the widest that the CPU has, so one binary serves
// all machines. Sanitizers cannot run before the loader does that.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define NL_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define NL_VECTOR_CLONES
#endif
// Says that no iteration of the loop reads what another one writes, so that it vectorizes in place, too.
#if defined(__clang__)
#define NL_EACH_ALONE
#else
#define NL_EACH_ALONE _Pragma("GCC ivdep")
#endif
#define NL_INLINE static inline __attribute__((always_inline))

namespace neoloom::model::cpu {

namespace {

constexpr int64_t kLanes = 16;  // partial sums, so that reductions vectorise without changing their order
constexpr int64_t kRowsAhead = 16;
constexpr float kGeluCubic = 0.044715F;
constexpr float kTwoRootTwoOverPi = 1.5957691216057308F;  // 2 sqrt(2/pi)

/// Returns a b + c, rounded once, on every CPU.
NL_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

/// Returns e^x to about one unit in the last place, by Cody and Waite's reduction and a Taylor series. x is clamped to
/// [-87, 88].
NL_INLINE float exponential(float x) {
  constexpr float kLog2E = 1.44269504088896341F;
  constexpr float kLn2High = 0.693359375F;  // few bits: its product with a small integer is exact
  constexpr float kLn2Low = -2.12194440e-4F;
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  x = x < -87.0F ? -87.0F : x;
  x = x > 88.0F ? 88.0F : x;
  const float shifted = fused(x, kLog2E, kRound);
  const float n = shifted - kRound;
  const float r = fused(-n, kLn2Low, fused(-n, kLn2High, x));
  float p = 1.0F / 5040.0F;
  p = fused(p, r, 1.0F / 720.0F);
  p = fused(p, r, 1.0F / 120.0F);
  p = fused(p, r, 1.0F / 24.0F);
  p = fused(p, r, 1.0F / 6.0F);
  p = fused(p, r, 0.5F);
  p = fused(p, r, 1.0F);
  p = fused(p, r, 1.0F);
  const int32_t exponent = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound);
  return p * std::bit_cast<float>((exponent + 127) << 23);
}

struct Gelu {
  float value, slope;
};

/// Returns gelu_new(x) and its derivative. With u = sqrt(2/pi) (x + 0.044715 x^3) and e = e^(-2u), both consist of 0.5
/// (1 + tanh(u)) = 1 / (1 + e) and 0.5 (1 - tanh(u)) = e / (1 + e).
NL_INLINE Gelu gelu_at(float x) {
  const float square = x * x;
  const float e = exponential(x * fused(square, -kTwoRootTwoOverPi * kGeluCubic, -kTwoRootTwoOverPi));
  const float gate = 1.0F / (1.0F + e);
  const float value = x * gate;
  const float d_twice_u = fused(square, 3.0F * kTwoRootTwoOverPi * kGeluCubic, kTwoRootTwoOverPi);
  return {value, fused(value * (e * gate), d_twice_u, gate)};
}

NL_INLINE float maximum(const float* row, int64_t begin, int64_t end) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, -std::numeric_limits<float>::infinity());
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] = row[i + lane] > lanes[lane] ? row[i + lane] : lanes[lane];
  }
  float top = lanes[0];
  for (int64_t lane = 1; lane < kLanes; ++lane) top = std::max(top, lanes[lane]);
  for (; i < end; ++i) top = std::max(top, row[i]);
  return top;
}

NL_INLINE float total(const float* lanes) {
  double sum = 0.0;
  for (int64_t lane = 0; lane < kLanes; ++lane) sum += static_cast<double>(lanes[lane]);
  return static_cast<float>(sum);
}

/// Sets row to e^(row - top) over [begin, end) and returns the sum. A NaN stays one.
NL_INLINE float exponentials(float* row, int64_t begin, int64_t end, float top) {
  float lanes[kLanes] = {};
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float e = exponential(row[i + lane] - top);
      row[i + lane] = e;
      lanes[lane] += e;
    }
  }
  for (; i < end; ++i) {
    row[i] = exponential(row[i] - top);
    lanes[i % kLanes] += row[i];
  }
  return total(lanes);
}

/// Returns the value's bfloat16 in the low half, rounded to nearest even. A NaN stays one.
NL_INLINE uint32_t bfloat16_bits(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  return (bits & 0x7FFFFFFFU) > 0x7F800000U ? 0x7FC0U : rounded;
}

NL_INLINE float value_of(float value) { return value; }
NL_INLINE float value_of(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
NL_INLINE void store(float value, float& to) { to = value; }
NL_INLINE void store(float value, uint16_t& to) { to = static_cast<uint16_t>(bfloat16_bits(value)); }

/// Prefetches a row. Rows of one head or tile lie pages apart, which the CPU's own prefetching does not follow.
template <typename Value>
NL_INLINE void prefetch_row(const RowsOf<Value>& rows, int64_t row) {
  if (row >= rows.count) return;
  constexpr int64_t kLine = 64 / sizeof(Value);
  for (int64_t i = 0; i < rows.width; i += kLine) __builtin_prefetch(rows.values + row * rows.stride + i);
}

template <typename In, typename Out>
NL_INLINE void gelu_rows(const RowsOf<In>& x, Out* y, int64_t y_stride) {
  for (int64_t row = 0; row < x.count; ++row) {
    const In* const in = x.values + row * x.stride;
    Out* const out = y + row * y_stride;
    NL_EACH_ALONE
    for (int64_t i = 0; i < x.width; ++i) store(gelu_at(value_of(in[i])).value, out[i]);
  }
}

template <typename Value>
NL_INLINE void gelu_and_slope_rows(const Rows& x, Value* y, int64_t y_stride, Value* slope, int64_t slope_stride) {
  for (int64_t row = 0; row < x.count; ++row) {
    const float* const in = x.values + row * x.stride;
    Value* const out = y + row * y_stride;
    Value* const kept = slope + row * slope_stride;
    NL_EACH_ALONE
    for (int64_t i = 0; i < x.width; ++i) {
      const Gelu gelu = gelu_at(in[i]);
      store(gelu.value, out[i]);
      store(gelu.slope, kept[i]);
    }
  }
}

template <typename In, typename Out>
NL_INLINE void copy_values(const RowsOf<In>& rows, Out* out, int64_t out_stride) {
  for (int64_t row = 0; row < rows.count; ++row) {
    prefetch_row(rows, row + kRowsAhead);
    const In* const in = rows.values + row * rows.stride;
    Out* const to = out + row * out_stride;
    for (int64_t i = 0; i < rows.width; ++i) store(value_of(in[i]), to[i]);
  }
}

/// Sets out to rows * factor_of(x), element by element.
template <typename Value, typename Factor>
NL_INLINE void multiply_rows(const Rows& rows, const Value* x, int64_t x_stride, Value* out, int64_t out_stride,
                             Factor factor_of) {
  const RowsOf<const Value> source = {x, x_stride, rows.count, rows.width};
  for (int64_t row = 0; row < rows.count; ++row) {
    prefetch_row(source, row + kRowsAhead);
    const float* const in = rows.values + row * rows.stride;
    const Value* const by = x + row * x_stride;
    Value* const to = out + row * out_stride;
    NL_EACH_ALONE
    for (int64_t i = 0; i < rows.width; ++i) store(in[i] * factor_of(value_of(by[i])), to[i]);
  }
}

template <typename Value>
NL_INLINE void gelu_backward_rows(const Rows& dy, const Value* x, int64_t x_stride, Value* dx, int64_t dx_stride) {
  multiply_rows(dy, x, x_stride, dx, dx_stride, [](float value) { return gelu_at(value).slope; });
}

template <typename Value>
NL_INLINE void scale_rows_by(const Rows& rows, const Value* factor, int64_t factor_stride, Value* out,
                             int64_t out_stride) {
  multiply_rows(rows, factor, factor_stride, out, out_stride, [](float value) { return value; });
}

/// Returns the sum of value(i) over [0, count).
template <typename Value>
NL_INLINE double sum_of(int64_t count, Value value) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += static_cast<double>(value(i + lane));
  }
  for (; i < count; ++i) lanes[i % kLanes] += static_cast<double>(value(i));
  double sum = 0.0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

template <typename Out>
NL_INLINE void layer_norm_rows(const LayerNorm& norm, const Rows& x, Out* y, int64_t y_stride, float* mean,
                               float* rstd) {
  const auto width = static_cast<double>(x.width);
  for (int64_t row = 0; row < x.count; ++row) {
    const float* const in = x.values + row * x.stride;
    Out* const out = y + row * y_stride;
    const auto m = static_cast<float>(sum_of(x.width, [&](int64_t i) { return in[i]; }) / width);
    const double variance = sum_of(x.width, [&](int64_t i) { return (in[i] - m) * (in[i] - m); }) / width;
    const auto r = static_cast<float>(1.0 / std::sqrt(variance + norm.epsilon));
    for (int64_t i = 0; i < x.width; ++i) store((in[i] - m) * r * norm.weight[i] + norm.bias[i], out[i]);
    mean[row] = m;
    rstd[row] = r;
  }
}

}  // namespace

NL_VECTOR_CLONES void gelu(const Rows& x, float* y, int64_t y_stride) { gelu_rows(x, y, y_stride); }
NL_VECTOR_CLONES void gelu(const Rows& x, uint16_t* y, int64_t y_stride) { gelu_rows(x, y, y_stride); }
NL_VECTOR_CLONES void gelu(const LowpRows& x, uint16_t* y, int64_t y_stride) { gelu_rows(x, y, y_stride); }

NL_VECTOR_CLONES void gelu_and_slope(const Rows& x, float* y, int64_t y_stride, float* slope, int64_t slope_stride) {
  gelu_and_slope_rows(x, y, y_stride, slope, slope_stride);
}
NL_VECTOR_CLONES void gelu_and_slope(const Rows& x, uint16_t* y, int64_t y_stride, uint16_t* slope,
                                     int64_t slope_stride) {
  gelu_and_slope_rows(x, y, y_stride, slope, slope_stride);
}

NL_VECTOR_CLONES void scale_rows(const Rows& rows, const float* factor, int64_t factor_stride, float* out,
                                 int64_t out_stride) {
  scale_rows_by(rows, factor, factor_stride, out, out_stride);
}
NL_VECTOR_CLONES void scale_rows(const Rows& rows, const uint16_t* factor, int64_t factor_stride, uint16_t* out,
                                 int64_t out_stride) {
  scale_rows_by(rows, factor, factor_stride, out, out_stride);
}

NL_VECTOR_CLONES void scale_and_shift(const float* scale, const float* bias, const Rows& rows, float* sums,
                                      int64_t stride) {
  for (int64_t row = 0; row < rows.count; ++row) {
    float* const to = sums + row * stride;
    NL_EACH_ALONE
    for (int64_t i = 0; i < rows.width; ++i) to[i] *= scale[i];
    if (bias != nullptr) {
      NL_EACH_ALONE
      for (int64_t i = 0; i < rows.width; ++i) to[i] += bias[i];
    }
    if (rows.values == nullptr) continue;
    const float* const in = rows.values + row * rows.stride;
    NL_EACH_ALONE
    for (int64_t i = 0; i < rows.width; ++i) to[i] += in[i];
  }
}

NL_VECTOR_CLONES void gelu_backward(const Rows& dy, const float* x, int64_t x_stride, float* dx, int64_t dx_stride) {
  gelu_backward_rows(dy, x, x_stride, dx, dx_stride);
}
NL_VECTOR_CLONES void gelu_backward(const Rows& dy, const uint16_t* x, int64_t x_stride, uint16_t* dx,
                                    int64_t dx_stride) {
  gelu_backward_rows(dy, x, x_stride, dx, dx_stride);
}

NL_VECTOR_CLONES void sum_rows(const float* bias, const Rows& rows, float* out, int64_t out_stride) {
  for (int64_t row = 0; row < rows.count; ++row) {
    if (rows.values != nullptr) prefetch_row(rows, row + kRowsAhead);
    const float* const in = rows.values + row * rows.stride;
    float* const to = out + row * out_stride;
    if (rows.values == nullptr) {
      std::copy_n(bias, rows.width, to);
    } else if (bias == nullptr) {
      if (in != to) std::copy_n(in, rows.width, to);
    } else {
      NL_EACH_ALONE
      for (int64_t i = 0; i < rows.width; ++i) to[i] = bias[i] + in[i];
    }
  }
}

NL_VECTOR_CLONES void layer_norm(const LayerNorm& norm, const Rows& x, float* y, int64_t y_stride, float* mean,
                                 float* rstd) {
  layer_norm_rows(norm, x, y, y_stride, mean, rstd);
}
NL_VECTOR_CLONES void layer_norm(const LayerNorm& norm, const Rows& x, uint16_t* y, int64_t y_stride, float* mean,
                                 float* rstd) {
  layer_norm_rows(norm, x, y, y_stride, mean, rstd);
}

NL_VECTOR_CLONES void add_layer_norm_gradient(const LayerNorm& norm, const Rows& dy, const Rows& x, const float* mean,
                                              const float* rstd, float* sum, int64_t sum_stride) {
  const auto width = static_cast<double>(dy.width);
  const float* const weight = norm.weight;
  for (int64_t row = 0; row < dy.count; ++row) {
    const float* const gradient = dy.values + row * dy.stride;
    const float* const in = x.values + row * x.stride;
    float* const out = sum + row * sum_stride;
    const float m = mean[row];
    const float r = rstd[row];
    const auto mean_gradient =
        static_cast<float>(sum_of(dy.width, [&](int64_t i) { return gradient[i] * weight[i]; }) / width);
    const auto slope = static_cast<float>(
        sum_of(dy.width, [&](int64_t i) { return gradient[i] * weight[i] * ((in[i] - m) * r); }) / width);
    NL_EACH_ALONE
    for (int64_t i = 0; i < dy.width; ++i) {
      out[i] += r * (gradient[i] * weight[i] - mean_gradient - (in[i] - m) * r * slope);
    }
  }
}

NL_VECTOR_CLONES void softmax_range(float* row, int64_t begin, int64_t end, int64_t width) {
  // Fills the range up to whole vectors with -inf, where there is room. Their e^x is tiny and vanishes beside the
  // maximum's 1.
  const int64_t whole = std::min(begin + (end - begin + kLanes - 1) / kLanes * kLanes, width);
  std::fill(row + end, row + whole, -std::numeric_limits<float>::infinity());
  const float top = maximum(row, begin, whole);
  const float sum = exponentials(row, begin, whole, top);
  // Divides, because the rounding error of 1 / sum would scale the whole row, and the gradient's dp - mean amplifies
  // it.
  for (int64_t i = begin; i < end; ++i) row[i] /= sum;
  std::fill(row, row + begin, 0.0F);
  std::fill(row + end, row + width, 0.0F);
}

NL_VECTOR_CLONES void softmax_backward_range(const float* p, float* dp, int64_t begin, int64_t end, int64_t width) {
  // Sums in double: where one probability is almost 1, dp - mean cancels almost everything.
  double lanes[kLanes] = {};
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += static_cast<double>(p[i + lane]) * static_cast<double>(dp[i + lane]);
    }
  }
  double mean = 0.0;
  for (; i < end; ++i) mean += static_cast<double>(p[i]) * static_cast<double>(dp[i]);
  for (const double lane : lanes) mean += lane;
  for (i = begin; i < end; ++i) {
    dp[i] = static_cast<float>(static_cast<double>(p[i]) * (static_cast<double>(dp[i]) - mean));
  }
  std::fill(dp, dp + begin, 0.0F);
  std::fill(dp + end, dp + width, 0.0F);
}

void transpose(const float* in, int64_t in_stride, int64_t rows, int64_t columns, float* out, int64_t out_stride) {
  using Four = float __attribute__((vector_size(16)));
  const auto load = [](const float* from) {
    Four values;
    std::memcpy(&values, from, sizeof(values));
    return values;
  };
  const int64_t whole_rows = rows / 4 * 4;
  const int64_t whole_columns = columns / 4 * 4;
  for (int64_t row = 0; row < whole_rows; row += 4) {
    for (int64_t column = 0; column < whole_columns; column += 4) {
      const float* const from = in + row * in_stride + column;
      const Four a = load(from);
      const Four b = load(from + in_stride);
      const Four c = load(from + 2 * in_stride);
      const Four d = load(from + 3 * in_stride);
      const Four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
      const Four ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
      const Four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
      const Four cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      const Four transposed[] = {
          __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5), __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
          __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5), __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
      for (int64_t i = 0; i < 4; ++i) std::memcpy(out + (column + i) * out_stride + row, &transposed[i], sizeof(Four));
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = row < whole_rows ? whole_columns : 0; column < columns; ++column) {
      out[column * out_stride + row] = in[row * in_stride + column];
    }
  }
}

NL_VECTOR_CLONES void copy_rows(const Rows& rows, float* out, int64_t out_stride) {
  copy_values(rows, out, out_stride);
}
NL_VECTOR_CLONES void copy_rows(const Rows& rows, uint16_t* out, int64_t out_stride) {
  copy_values(rows, out, out_stride);
}
NL_VECTOR_CLONES void copy_rows(const LowpRows& rows, float* out, int64_t out_stride) {
  copy_values(rows, out, out_stride);
}
NL_VECTOR_CLONES void copy_rows(const LowpRows& rows, uint16_t* out, int64_t out_stride) {
  for (int64_t row = 0; row < rows.count; ++row) {
    prefetch_row(rows, row + kRowsAhead);
    std::copy_n(rows.values + row * rows.stride, rows.width, out + row * out_stride);
  }
}

NL_VECTOR_CLONES void interleave_rows(const LowpRows& rows, uint32_t* out) {
  for (int64_t row = 0; row < rows.count; row += 2) {
    prefetch_row(rows, row + kRowsAhead);
    prefetch_row(rows, row + 1 + kRowsAhead);
    const uint16_t* const first = rows.values + row * rows.stride;
    uint32_t* const to = out + row / 2 * rows.width;
    if (row + 1 < rows.count) {
      const uint16_t* const second = first + rows.stride;
      for (int64_t i = 0; i < rows.width; ++i) to[i] = first[i] | static_cast<uint32_t>(second[i]) << 16;
    } else {
      std::copy_n(first, rows.width, to);
    }
  }
}

NL_VECTOR_CLONES float cross_entropy_row(float* row, int64_t width, int64_t target, float scale) {
  const float top = maximum(row, 0, width);
  const float at_target = row[target] - top;
  const float sum = exponentials(row, 0, width, top);
  const float loss = std::log(sum) - at_target;
  if (scale == 0.0F) return loss;
  const float factor = scale / sum;
  for (int64_t i = 0; i < width; ++i) row[i] *= factor;
  row[target] -= scale;
  return loss;
}

}  // namespace neoloom::model::cpu
