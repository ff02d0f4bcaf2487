// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/cpu_traits.h"
#include "model/options.h"

namespace neoloom::model {

inline constexpr int64_t kPackedColumns = 64;

/// Copies of a frozen matrix W [out, in] in the order in which a microkernel (gemm_microkernel.h) reads the right side
/// of a product [K, N]: panels of 64 columns, each with its K rows one after the other; the last one is filled up
/// with zeros. For 16-bit products two rows are interleaved, which is how AVX512_BF16 and AMX want them.
struct PackedWeights {
  at::Tensor forward;   // of W^T, for x W^T; undefined: none
  at::Tensor backward;  // of W, for dy W; only for 16-bit products, the others read W itself
};

/// A matrix of the model with what makes its products fast.
struct Matrix {
  at::Tensor plain;  // [out, in], any dtype
  PackedWeights packed_weights;

  Matrix() = default;
  Matrix(at::Tensor values) : plain(std::move(values)) {}  // NOLINT: a tensor is a matrix without packed weights
  Matrix(at::Tensor values, PackedWeights copies) : plain(std::move(values)), packed_weights(std::move(copies)) {}
};

/// What packed weights hold: the frozen dtype (converted while multiplying), or bfloat16 for 16-bit products.
at::ScalarType packed_dtype(at::ScalarType frozen, Dtype compute_dtype);

/// Shape of the packed weights of a right side [k, n]: [ceil(n / 64), k, 64], or [ceil(n / 64), ceil(k / 2), 64, 2].
std::vector<int64_t> packed_shape(int64_t k, int64_t n, Dtype compute_dtype);

/// `right` [k, n], of any strides, in that shape.
at::Tensor pack_weights(const at::Tensor& right, Dtype compute_dtype);

}  // namespace neoloom::model
