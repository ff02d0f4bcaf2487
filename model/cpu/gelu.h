// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace neoloom::model {

/// gelu_new of an fp32 or, on the CPU, bfloat16 matrix; own loops on the CPU (ATen's tanh is compute bound), ATen
/// elsewhere. Shapes: [n, c] -> [n, c] in the type of x.
at::Tensor gelu_new(const at::Tensor& x);

/// The same of an fp32 matrix on the CPU, and gelu_new'(x) written over x.
at::Tensor gelu_new_leaving_slope(at::Tensor& x);

/// dy * gelu_new'(x), of fp32 matrices; written over dy where possible: dy is consumed.
at::Tensor gelu_new_backward(const at::Tensor& dy, const at::Tensor& x);

}  // namespace neoloom::model
