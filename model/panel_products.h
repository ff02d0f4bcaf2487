// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "model/panels.h"

namespace neoloom::model {

/// The right side [k, n] of a product: panels (3 or 4 dimensions, see panel_shape) or the matrix itself (2 dimensions,
/// rows contiguous; not for 16-bit products).
struct RightSide {
  at::Tensor values;
  int64_t k = 0;
  int64_t n = 0;
};

/// y [m, n] += x [m, k] * right, fp32 accumulation in a fixed order over k, whatever the number of rows and threads.
/// x holds fp32, or bfloat16 when `right` holds pairs of rows (then k even, padded with zeros). A 16-bit right side of
/// fp32 products is widened block by block. Any thread count; CPU only.
void add_panel_product(at::Tensor& y, const at::Tensor& x, const RightSide& right);

/// The same with y = bias + x * right; bias [n] fp32 or undefined.
void panel_product(at::Tensor& y, const at::Tensor& x, const RightSide& right, const at::Tensor& bias);

}  // namespace neoloom::model
