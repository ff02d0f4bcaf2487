// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/gemm_microkernel_avx2.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>

#define NL_AVX2 __attribute__((target("avx2,fma,f16c")))
#define NL_AVX2_INLINE NL_AVX2 __attribute__((always_inline)) inline
#define NL_UNROLL _Pragma("GCC unroll 8")

namespace neoloom::model::avx2 {

namespace {

constexpr int64_t kLanes = 8;
// Six rows of two vectors take 12 of the 16 registers for their sums. Fewer sums would not hide the latency of an
// addition.
constexpr int64_t kMostRows = 6;

/// Loads and stores the last vector of a row: all of its lanes, or (FirstLanes) the first few.
struct AllLanes {
  NL_AVX2_INLINE __m256 load(const float* from) const { return _mm256_loadu_ps(from); }
  NL_AVX2_INLINE void store(float* to, __m256 values) const { _mm256_storeu_ps(to, values); }
};
struct FirstLanes {
  __m256i mask;
  NL_AVX2 explicit FirstLanes(int64_t count)
      : mask(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                                _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))) {}
  NL_AVX2_INLINE __m256 load(const float* from) const { return _mm256_maskload_ps(from, mask); }
  NL_AVX2_INLINE void store(float* to, __m256 values) const { _mm256_maskstore_ps(to, mask, values); }
};

/// Computes c [kRows, 8 kVectors] = or += a b over k. The last vector has the lanes of `last`.
template <int64_t kRows, int64_t kVectors, typename Lanes>
NL_AVX2_INLINE void multiply_rows(int64_t k, Operand<const float> a, Operand<const float> b, Operand<float> c, bool add,
                                  const Lanes& last) {
  constexpr AllLanes kAll;
  constexpr int64_t kLast = kVectors - 1;
  __m256 sums[kRows][kVectors];
  NL_UNROLL for (int64_t row = 0; row < kRows; ++row) {
    NL_UNROLL for (int64_t i = 0; i < kVectors; ++i) sums[row][i] = _mm256_setzero_ps();
  }
  for (int64_t depth = 0; depth < k; ++depth) {
    const float* const from = b.values + depth * b.stride;
    __m256 right[kVectors];
    NL_UNROLL for (int64_t i = 0; i < kLast; ++i) right[i] = kAll.load(from + i * kLanes);
    right[kLast] = last.load(from + kLast * kLanes);
    NL_UNROLL for (int64_t row = 0; row < kRows; ++row) {
      const __m256 left = _mm256_broadcast_ss(a.values + row * a.stride + depth);
      NL_UNROLL for (int64_t i = 0; i < kVectors; ++i) sums[row][i] = _mm256_fmadd_ps(left, right[i], sums[row][i]);
    }
  }
  NL_UNROLL for (int64_t row = 0; row < kRows; ++row) {
    float* const to = c.values + row * c.stride;
    NL_UNROLL for (int64_t i = 0; i < kLast; ++i) {
      if (add) sums[row][i] = _mm256_add_ps(sums[row][i], kAll.load(to + i * kLanes));
      kAll.store(to + i * kLanes, sums[row][i]);
    }
    float* const end = to + kLast * kLanes;
    if (add) sums[row][kLast] = _mm256_add_ps(sums[row][kLast], last.load(end));
    last.store(end, sums[row][kLast]);
  }
}

/// Does the same for any number of rows up to kMost.
template <int64_t kMost, int64_t kVectors, typename Lanes>
NL_AVX2_INLINE void multiply_few_rows(GemmShape sizes, Operand<const float> a, Operand<const float> b, Operand<float> c,
                                      bool add, const Lanes& last) {
  if constexpr (kMost > 1) {
    if (sizes.m < kMost) return multiply_few_rows<kMost - 1, kVectors>(sizes, a, b, c, add, last);
  }
  multiply_rows<kMost, kVectors>(sizes.k, a, b, c, add, last);
}

/// Multiplies all rows of up to 16 columns, in even parts of at most six rows. Five rows take as long as six, and six
/// rows and then one take as long as twice six.
template <int64_t kVectors, typename Lanes>
NL_AVX2 void multiply_columns(GemmShape sizes, Operand<const float> a, Operand<const float> b, Operand<float> c,
                              bool add, const Lanes& last) {
  const int64_t parts = (sizes.m + kMostRows - 1) / kMostRows;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t row = sizes.m * part / parts;
    const int64_t rows = sizes.m * (part + 1) / parts - row;
    multiply_few_rows<kMostRows, kVectors>({rows, sizes.n, sizes.k}, a.from(row), b, c.from(row), add, last);
  }
}

NL_AVX2_INLINE __m256 to_fp32(const float* from) { return _mm256_loadu_ps(from); }
NL_AVX2_INLINE __m256 to_fp32(const uint16_t* float16) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(float16)));
}
struct BFloat16Bits {
  uint16_t bits;
};
NL_AVX2_INLINE __m256 to_fp32(const BFloat16Bits* from) {
  const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}

template <typename Element>
NL_AVX2 void copy_elements(const MatrixRows& from, int64_t n, float* to) {
  const auto* source = static_cast<const Element*>(from.values);
  const auto copy_step = [&](const Element* values, int64_t column) NL_AVX2 {
    float* const out = to + (column - column % n) * from.rows + column % n;
    _mm256_storeu_ps(out, to_fp32(values));
    _mm256_storeu_ps(out + kLanes, to_fp32(values + kLanes));
  };
  const int64_t whole = from.columns / kMicrokernelN * kMicrokernelN;
  for (int64_t row = 0; row < from.rows; ++row, source += from.stride, to += n) {
    for (int64_t column = 0; column < whole; column += kMicrokernelN) copy_step(source + column, column);
    if (whole == from.columns) continue;
    std::array<Element, kMicrokernelN> filled = {};
    std::copy(source + whole, source + from.columns, filled.begin());
    copy_step(filled.data(), whole);
  }
}

}  // namespace

/// Does not ask for F16C: it is older than AVX2, and clang has no name for it here.
bool runs() { return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0; }

void multiply(GemmShape sizes, Operand<const float> a, Operand<const float> b, Operand<float> c, bool add) {
  for (int64_t column = 0; column < sizes.n; column += kMicrokernelN) {
    const int64_t width = std::min(kMicrokernelN, sizes.n - column);
    const Operand<const float> right = {b.values + column, b.stride};
    const Operand<float> to = {c.values + column, c.stride};
    if (width == kMicrokernelN) {
      multiply_columns<2>(sizes, a, right, to, add, AllLanes());
    } else if (width > kLanes) {
      multiply_columns<2>(sizes, a, right, to, add, FirstLanes(width - kLanes));
    } else if (width == kLanes) {
      multiply_columns<1>(sizes, a, right, to, add, AllLanes());
    } else {
      multiply_columns<1>(sizes, a, right, to, add, FirstLanes(width));
    }
  }
}

void copy_tile(const MatrixRows& from, int64_t n, float* to) {
  switch (from.dtype) {
    case Dtype::kFloat32:
      return copy_elements<float>(from, n, to);
    case Dtype::kFloat16:
      return copy_elements<uint16_t>(from, n, to);
    case Dtype::kBFloat16:
      return copy_elements<BFloat16Bits>(from, n, to);
  }
}

}  // namespace neoloom::model::avx2

#else

namespace neoloom::model::avx2 {

bool runs() { return false; }
void multiply(GemmShape, Operand<const float>, Operand<const float>, Operand<float>, bool) {}
void copy_tile(const MatrixRows&, int64_t, float*) {}

}  // namespace neoloom::model::avx2

#endif
