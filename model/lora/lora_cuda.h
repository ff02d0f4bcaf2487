// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "model/cuda/matmul.h"
#include "model/lora/lora.h"

namespace neoloom::model {

/// What an adapter's forward keeps for backward on a GPU, in the compute dtype.
struct AdapterSaved {
  at::Tensor mask;  // [n, in] bool, true: kept; undefined without dropout
  at::Tensor down;  // [n, r]: drop(x) A^T
};

// LoraBranch on a GPU: inputs of all matmuls have the compute dtype, gradients of A and B are fp32. Masks come from
// at::native_dropout and the default generator of x's device, in the order of calls. A mask or down that `saved`
// already holds is reused, so no mask is drawn twice.

/// Returns x * mask / (1 - probability). Draws the mask, unless it is defined. Shapes: x, mask [n, c].
at::Tensor drop_on_cuda(double probability, const at::Tensor& x, at::Tensor& mask);

/// drop(x) A^T B^T - x a0^T b0^T without the scale, in the compute dtype. Shapes: x [n, in]; returns [n, out].
at::Tensor adapter_output_on_cuda(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& x,
                                  AdapterSaved& saved);

/// y += s * (drop(x) A^T B^T - x a0^T b0^T). Shapes: x [n, in], y [n, out] fp32.
void add_adapter_on_cuda(const CudaMatmul& matmul, const LoraBranch& lora, at::Tensor& y, const at::Tensor& x,
                         AdapterSaved& saved);

/// Writes the gradients of A and B. Unless `dx` is null, adds the adapter's part of x's gradient to dx [n, in] fp32.
/// Shapes: dy [n, out], x [n, in].
void adapter_backward_on_cuda(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& dy,
                              const at::Tensor& x, const AdapterSaved& saved, at::Tensor* dx);

/// DoRA's output without the bias, W (x - drop(x)) + gain (W + s B A) drop(x), in fp32. Shapes: weight [out, in], x [n,
/// in] compute dtype; returns [n, out].
at::Tensor dora_output_on_cuda(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& weight,
                               const at::Tensor& x, AdapterSaved& saved);

/// Returns the gradient of (W + s B A) drop(x) where W x has no other part in y, else dy. Times W, it is the part of
/// x's gradient that dora_backward_on_cuda leaves to its caller. Shapes: dy [n, out], compute dtype, as is the result.
at::Tensor dora_base_gradient(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& dy);

/// Writes the gradients of A, B and magnitude. Unless `dx` is null, adds to it [n, in] fp32 what dora_base_gradient's
/// product leaves out. Shapes: weight [out, in], dy [n, out], x [n, in], compute dtype.
void dora_backward_on_cuda(const CudaMatmul& matmul, const LoraBranch& lora, const at::Tensor& weight,
                           const at::Tensor& dy, const at::Tensor& x, const AdapterSaved& saved, at::Tensor* dx);

}  // namespace neoloom::model
