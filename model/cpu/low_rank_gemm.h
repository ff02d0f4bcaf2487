// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace neoloom::model {

// GEMMs with LoRA's matrices, whose rank is small, on the CPU. Accumulation is fp32 in an order that depends on neither
// rows nor threads. Where the CPU has no microkernel for fp32 (gemm_microkernel.h) at::mm does them.

/// x right. Shapes: x [n, k] fp32 or bfloat16, columns contiguous; right [k, r] fp32, any strides, of few r; returns
/// [n, r] fp32. With bfloat16 x, which needs the microkernel for it, right is read to 16 bits of mantissa (as a sum of
/// two bfloat16).
at::Tensor low_rank_gemm(const at::Tensor& x, const at::Tensor& right);

/// left^T x. Shapes: left [n, r] fp32 of few r; x [n, c] fp32 or bfloat16, columns contiguous; returns [r, c] fp32.
at::Tensor low_rank_outer_product(const at::Tensor& left, const at::Tensor& x);

}  // namespace neoloom::model
