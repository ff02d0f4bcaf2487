// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace neoloom::model {

/// gelu_new of an fp32 tensor of any shape; own loops on the CPU (ATen's tanh is compute bound), ATen elsewhere.
/// `result`: fp32, or on the CPU bfloat16, for a product that reads it.
at::Tensor gelu_new(const at::Tensor& x, at::ScalarType result = at::kFloat);

/// dy * gelu_new'(x), of fp32 tensors; written over dy where possible: dy is consumed.
at::Tensor gelu_new_backward(const at::Tensor& dy, const at::Tensor& x, at::ScalarType result = at::kFloat);

}  // namespace neoloom::model
