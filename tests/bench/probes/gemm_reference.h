// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace neoloom::probes {

// What the GEMM probe's results are compared with, in the type of the arguments. W [m, k] where it is transposed.

/// Returns pre = x W^T + b and gelu_new(pre). Shapes: x [n, k], W [m, k], b [m]; returns [n, m] twice.
std::vector<at::Tensor> mlp_forward_reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

/// Returns (dy W) gelu_new'(pre). Shapes: dy [n, k], W [k, m], pre [n, m].
at::Tensor mlp_backward_reference(const at::Tensor& dy, const at::Tensor& weight, const at::Tensor& pre);

/// Returns residual + b + x W^T. Shapes: residual [n, m], b [m], x [n, k], W [m, k].
at::Tensor residual_reference(const at::Tensor& residual, const at::Tensor& bias, const at::Tensor& x,
                              const at::Tensor& weight);

/// Returns x W^T + s (x A^T) B^T. Shapes: x [n, k], W [m, k], A [r, k], B [m, r].
at::Tensor lora_reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& a, const at::Tensor& b,
                          double scaling);

}  // namespace neoloom::probes
