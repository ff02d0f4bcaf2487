// SPDX-License-Identifier: Apache-2.0
#include "model/lora/lora_cuda.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/native_dropout.h>
#include <ATen/ops/native_dropout_backward.h>

namespace neoloom::model {

namespace {

/// Returns x * mask / (1 - p).
at::Tensor masked(double probability, const at::Tensor& x, const at::Tensor& mask) {
  return at::native_dropout_backward(x, mask, 1.0 / (1.0 - probability));
}

/// The same; x without a mask.
at::Tensor masked(const LoraBranch& lora, const at::Tensor& x, const at::Tensor& mask) {
  return mask.defined() ? masked(lora.dropout.probability, x, mask) : x;
}

void down(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& x, AdapterSaved& saved) {
  if (saved.down.defined()) return;
  const at::Tensor dropped = lora.dropout.active() ? drop_on_cuda(lora.dropout.probability, x, saved.mask) : x;
  saved.down = matmul.multiply(dropped, lora.lowp_a.t());
}

/// The two factors of drop(x) A^T B^T - x a0^T b0^T. One matmul sums both products in fp32: their difference is small.
struct Factors {
  at::Tensor left;   // [n, r], or [n, 2r]
  at::Tensor right;  // [r, out], or [2r, out]
};

Factors factors(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& x, AdapterSaved& saved) {
  down(matmul, lora, x, saved);
  if (!lora.a0.defined()) return {saved.down, lora.lowp_b.t()};
  return {at::cat({saved.down, matmul.multiply(x, lora.lowp_a0.t())}, 1),
          at::cat({lora.lowp_b, lora.lowp_b0.neg()}, 1).t()};
}

/// Returns (W + s B A) drop(x) in fp32.
at::Tensor unscaled_output(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& weight,
                           const at::Tensor& dropped, const AdapterSaved& saved) {
  at::Tensor y = matmul.multiply_fp32(dropped, weight.t());
  matmul.add_multiply(y, saved.down, lora.lowp_b.t(), /*beta=*/1, lora.scaling);
  return y;
}

}  // namespace

at::Tensor drop_on_cuda(double probability, const at::Tensor& x, at::Tensor& mask) {
  if (mask.defined()) return masked(probability, x, mask);
  auto [dropped, drawn] = at::native_dropout(x, probability, /*train=*/true);
  mask = drawn;
  return dropped;
}

at::Tensor adapter_output_on_cuda(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& x,
                                  AdapterSaved& saved) {
  const Factors product = factors(matmul, lora, x, saved);
  return matmul.multiply(product.left, product.right);
}

void add_adapter_on_cuda(const CudaMatmul& matmul, const LoraBranch& lora, at::Tensor& y, const at::Tensor& x,
                         AdapterSaved& saved) {
  const Factors product = factors(matmul, lora, x, saved);
  matmul.add_multiply(y, product.left, product.right, /*beta=*/1, lora.scaling);
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
  if (!lora.a0.defined()) return;
  matmul.add_multiply(*dx, matmul.multiply(dy, lora.lowp_b0), lora.lowp_a0, /*beta=*/1, -lora.scaling);
}

at::Tensor dora_output_on_cuda(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& weight,
                               const at::Tensor& x, AdapterSaved& saved) {
  down(matmul, lora, x, saved);
  const at::Tensor dropped = masked(lora, x, saved.mask);
  at::Tensor y = unscaled_output(matmul, lora, weight, dropped, saved).mul_(lora.dora.gain);
  if (saved.mask.defined()) matmul.add_multiply(y, x.sub(dropped), weight.t());
  return y;
}

at::Tensor dora_base_gradient(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& dy) {
  return lora.dropout.active() ? dy : matmul.to_compute_dtype(dy.mul(lora.dora.gain));
}

void dora_backward_on_cuda(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& weight,
                           const at::Tensor& dy, const at::Tensor& x, const AdapterSaved& saved, at::Tensor* dx) {
  const at::Tensor dropped = masked(lora, x, saved.mask);
  lora.dora.write_gradient(dy, unscaled_output(matmul, lora, weight, dropped, saved));
  const at::Tensor scaled = dy.mul(lora.dora.gain);
  adapter_backward_on_cuda(matmul, lora, matmul.to_compute_dtype(scaled), x, saved, dx);
  if (dx == nullptr || !saved.mask.defined()) return;
  dx->add_(masked(lora, matmul.multiply_fp32(matmul.to_compute_dtype(scaled.sub(dy)), weight), saved.mask));
}

}  // namespace neoloom::model
