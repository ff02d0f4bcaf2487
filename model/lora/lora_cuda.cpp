// SPDX-License-Identifier: Apache-2.0
#include "model/lora/lora_cuda.h"

#include <ATen/ops/native_dropout.h>
#include <ATen/ops/native_dropout_backward.h>

#include <tuple>

namespace neoloom::model {

namespace {

/// Returns x * mask / (1 - p).
at::Tensor masked(const LoraBranch& lora, const at::Tensor& x, const at::Tensor& mask) {
  return mask.defined() ? at::native_dropout_backward(x, mask, 1.0 / (1.0 - lora.dropout.probability)) : x;
}

void down(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& x, AdapterSaved& saved) {
  if (saved.down.defined()) return;
  at::Tensor dropped = x;
  if (lora.dropout.active()) {
    std::tie(dropped, saved.mask) = at::native_dropout(x, lora.dropout.probability, /*train=*/true);
  }
  saved.down = matmul.multiply(dropped, lora.lowp_a.t());
}

}  // namespace

at::Tensor adapter_output_on_cuda(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& x,
                                  AdapterSaved& saved) {
  down(matmul, lora, x, saved);
  return matmul.multiply(saved.down, lora.lowp_b.t());
}

void add_adapter_on_cuda(const CudaMatmul& matmul, const LoraBranch& lora, at::Tensor& y, const at::Tensor& x,
                         AdapterSaved& saved) {
  down(matmul, lora, x, saved);
  matmul.add_multiply(y, saved.down, lora.lowp_b.t(), /*beta=*/1, lora.scaling);
}

void adapter_backward_on_cuda(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& dy,
                              const at::Tensor& x, const AdapterSaved& saved, at::Tensor* dx) {
  const at::Tensor d_down = matmul.multiply(dy, lora.lowp_b);  // [n, r], without the scale
  matmul.add_multiply(lora.b_grad, dy.t(), saved.down, /*beta=*/0, lora.scaling);
  matmul.add_multiply(lora.a_grad, d_down.t(), masked(lora, x, saved.mask), /*beta=*/0, lora.scaling);
  if (dx == nullptr) return;
  if (saved.mask.defined()) {
    dx->add_(masked(lora, matmul.multiply_fp32(d_down, lora.lowp_a), saved.mask), lora.scaling);
  } else {
    matmul.add_multiply(*dx, d_down, lora.lowp_a, /*beta=*/1, lora.scaling);
  }
}

}  // namespace neoloom::model
