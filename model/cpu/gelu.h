// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace neoloom::model {

/// gelu_new of a matrix, fp32 or, on the CPU, bfloat16. Uses elementwise.h on the CPU (ATen's tanh is compute bound),
/// ATen elsewhere. Shapes: [n, c] -> [n, c] in the type of x.
at::Tensor gelu_new(const at::Tensor& x);

/// Returns gelu_new of an fp32 CPU matrix, and overwrites x with gelu_new'(x).
at::Tensor gelu_new_leaving_slope(at::Tensor& x);

/// Returns dy * gelu_new'(x) of fp32 matrices. Consumes dy: the result overwrites it where possible.
at::Tensor gelu_new_backward(const at::Tensor& dy, const at::Tensor& x);

}  // namespace neoloom::model
