// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/cpu_traits.h"
#include "model/options.h"

namespace neoloom::model {

inline constexpr int64_t kPackedColumns = 64;

/// Copies of a frozen matrix W [out, in] in the order in which a microkernel (gemm_microkernel.h) reads operand B [K,
/// N] of a GEMM: one piece for each 64 columns, with its K rows contiguous, the last one padded with zeros. For 16-bit
/// GEMMs rows are interleaved in pairs, as AVX512_BF16 and AMX need it.
struct PackedWeights {
  at::Tensor forward;   // of W^T, for x W^T; undefined: none
  at::Tensor backward;  // of W, for dy W; only for 16-bit GEMMs, others read W itself
};

/// A matrix of the model, and its packed weights if it has any.
struct Matrix {
  at::Tensor plain;  // [out, in], any dtype
  PackedWeights packed_weights;

  Matrix() = default;
  Matrix(at::Tensor values) : plain(std::move(values)) {}  // NOLINT: implicit, without packed weights
  Matrix(at::Tensor values, PackedWeights copies) : plain(std::move(values)), packed_weights(std::move(copies)) {}
};

/// Element type of packed weights: the frozen dtype (the GEMM converts it), or bfloat16 for 16-bit GEMMs.
at::ScalarType packed_dtype(at::ScalarType frozen, Dtype compute_dtype);

/// Shape of the packed weights of an operand B [k, n]: [ceil(n / 64), k, 64], or [ceil(n / 64), ceil(k / 2), 64, 2].
std::vector<int64_t> packed_shape(int64_t k, int64_t n, Dtype compute_dtype);

/// Packs operand B `right` [k, n], of any strides, in that shape.
at::Tensor pack_weights(const at::Tensor& right, Dtype compute_dtype);

}  // namespace neoloom::model
