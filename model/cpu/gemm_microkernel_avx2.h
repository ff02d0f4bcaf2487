// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/cpu/gemm_microkernel.h"

// What gemm_microkernel.h promises, for fp32 with AVX2 and FMA: many clusters' CPUs have no more. There ATen's
// microkernel reaches four fifths of this one's rate on 64 columns (oneDNN's ways for AVX2), and a product of BLAS
// packs both of its sides at every call.
namespace neoloom::model::avx2 {

/// Whether the CPU has AVX2, FMA and F16C; nothing else here may be called where it has not.
bool runs();

void multiply(GemmShape sizes, Operand<const float> a, Operand<const float> b, Operand<float> c, bool add);

/// Columns of b that multiply() reads together, row by row: fastest where they lie in one piece.
inline constexpr int64_t kColumnsTogether = 16;

/// Rows of a matrix in any type.
struct MatrixRows {
  const void* values = nullptr;
  Dtype dtype = Dtype::kFloat32;
  int64_t stride = 0;  // elements
  int64_t rows = 0;
  int64_t columns = 0;
};

/// to [ceil(columns / together), rows, together] in fp32, with `together` a multiple of 16. The last columns are filled
/// up to a multiple of 16 with zeros.
void copy_block(const MatrixRows& from, int64_t together, float* to);

}  // namespace neoloom::model::avx2
