// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace neoloom::model {

// GEMMs with LoRA's matrices, whose rank is small, on the CPU. Accumulation is fp32, in an order that depends on
// neither rows nor threads. Where the CPU has no fp32 microkernel (gemm_microkernel.h), they call at::mm.

/// x right. Shapes: x [n, k] fp32 or bfloat16, columns contiguous; right [k, r] fp32, any strides, small r; returns [n,
/// r] fp32. A bfloat16 x requires the bfloat16 microkernel; right is then rounded to 16 bits of mantissa (a sum of two
/// bfloat16).
at::Tensor low_rank_gemm(const at::Tensor& x, const at::Tensor& right);

/// left^T x. Shapes: left [n, r] fp32, small r; x [n, c] fp32 or bfloat16, columns contiguous; returns [r, c] fp32.
at::Tensor low_rank_outer_product(const at::Tensor& left, const at::Tensor& x);

}  // namespace neoloom::model
