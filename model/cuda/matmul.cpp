// SPDX-License-Identifier: Apache-2.0
#include "model/cuda/matmul.h"

#include <ATen/ops/mm.h>

namespace neoloom::model {

at::Tensor CudaMatmul::multiply(const at::Tensor& a, const at::Tensor& b) const { return at::mm(a, b); }

at::Tensor CudaMatmul::multiply_fp32(const at::Tensor& a, const at::Tensor& b) const {
  return compute_dtype_ == Dtype::kFloat32 ? at::mm(a, b) : operators_->gemm(a, b);
}

void CudaMatmul::add_multiply(const at::Tensor& y, const at::Tensor& a, const at::Tensor& b, double beta,
                              double alpha) const {
  if (compute_dtype_ == Dtype::kFloat32) {
    y.addmm_(a, b, beta, alpha);
  } else {
    operators_->add_gemm(y, a, b, beta, alpha);
  }
}

}  // namespace neoloom::model
