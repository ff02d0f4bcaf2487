// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <utility>

#include "model/cuda/operators.h"
#include "model/options.h"
#include "model/scalar_type.h"

namespace neoloom::model {

/// Matmuls on a GPU. Inputs have the compute dtype, and each matmul is one ATen operator.
class CudaMatmul {
 public:
  CudaMatmul(Dtype compute_dtype, std::shared_ptr<const CudaOperators> operators)
      : compute_dtype_(compute_dtype), operators_(std::move(operators)) {}

  const CudaOperators& operators() const { return *operators_; }

  at::Tensor to_compute_dtype(const at::Tensor& x) const { return x.to(scalar_type(compute_dtype_)); }

  /// a b in the compute dtype, from inputs in the compute dtype. Shapes: a [n, k], b [k, m]; returns [n, m].
  at::Tensor multiply(const at::Tensor& a, const at::Tensor& b) const;
  /// The same in fp32.
  at::Tensor multiply_fp32(const at::Tensor& a, const at::Tensor& b) const;
  /// y = beta y + alpha a b in fp32. Shapes: y [n, m], any row stride.
  void add_multiply(const at::Tensor& y, const at::Tensor& a, const at::Tensor& b, double beta = 1.0,
                    double alpha = 1.0) const;

 private:
  Dtype compute_dtype_;
  std::shared_ptr<const CudaOperators> operators_;
};

}  // namespace neoloom::model
