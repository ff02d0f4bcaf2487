// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/probes/gemm_reference.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/mm.h>

namespace neoloom::probes {

std::vector<at::Tensor> mlp_forward_reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor pre = at::mm(x, weight.t()) + bias;
  return {pre, at::gelu(pre, "tanh")};
}

at::Tensor mlp_backward_reference(const at::Tensor& dy, const at::Tensor& weight, const at::Tensor& pre) {
  return at::gelu_backward(at::mm(dy, weight), pre, "tanh");
}

at::Tensor residual_reference(const at::Tensor& residual, const at::Tensor& bias, const at::Tensor& x,
                              const at::Tensor& weight) {
  return residual + bias + at::mm(x, weight.t());
}

at::Tensor lora_reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& a, const at::Tensor& b,
                          double scaling) {
  return at::mm(x, weight.t()) + at::mm(at::mm(x, a.t()), b.t()) * scaling;
}

}  // namespace neoloom::probes
