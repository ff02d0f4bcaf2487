// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/cpu/gemm_microkernel.h"

// The fp32 microkernel of gemm_microkernel.h for CPUs with AVX2 and FMA but without AVX-512. On 64 columns oneDNN's
// AVX2 brgemm reaches four fifths of its rate; BLAS's sgemm packs both operands at every call.
namespace neoloom::model::avx2 {

/// Whether the CPU has AVX2, FMA and F16C. If not, nothing else here may be called.
bool runs();

void multiply(GemmShape sizes, Operand<const float> a, Operand<const float> b, Operand<float> c, bool add);

/// Columns of b that multiply() reads at once, row by row. It is fastest where they are contiguous.
inline constexpr int64_t kMicrokernelN = 16;

/// Rows of a matrix in any type.
struct MatrixRows {
  const void* values = nullptr;
  Dtype dtype = Dtype::kFloat32;
  int64_t stride = 0;  // elements
  int64_t rows = 0;
  int64_t columns = 0;
};

/// Copies `from` to `to` [ceil(columns / n), rows, n] in fp32; `n` is a multiple of 16. Pads the
/// last columns with zeros to a multiple of 16.
void copy_tile(const MatrixRows& from, int64_t n, float* to);

}  // namespace neoloom::model::avx2
