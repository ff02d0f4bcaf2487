// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "model/options.h"

namespace neoloom::model {

/// Matrix products with weights that are stored in any dtype. Activations come and go in fp32; what happens between is
/// decided by the compute dtype and by what the device multiplies well:
///   16-bit inputs   where the compute dtype is 16 bit and the device has arithmetic for it;
///   fp32            everywhere else: 16-bit weights are widened slice by slice into a bounded scratch.
/// On a CPU without fp16 arithmetic a product of fp16 matrices runs element by element, hundreds of times slower.
class Products {
 public:
  explicit Products(Dtype compute_dtype) : compute_dtype_(compute_dtype) {}

  /// x W^T + bias. Shapes: x [n, in] fp32; weight [out, in]; bias [out] fp32 or undefined; returns [n, out] fp32.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

  /// dy W, the gradient of x. Shapes: dy [n, out] fp32; weight [out, in]; returns [n, in] fp32.
  at::Tensor input_gradient(const at::Tensor& dy, const at::Tensor& weight);

  /// The same, added to `dx` [n, in] fp32.
  void add_input_gradient(at::Tensor& dx, const at::Tensor& dy, const at::Tensor& weight);

 private:
  bool multiplies_16bit(const at::Tensor& weight) const;
  at::ScalarType input_type() const;
  at::Tensor widened_rows(const at::Tensor& weight, int64_t begin, int64_t rows);

  Dtype compute_dtype_;
  at::Tensor scratch_;  // fp32 copy of a slice of a 16-bit weight
};

at::ScalarType scalar_type(Dtype dtype);

}  // namespace neoloom::model
