// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace neoloom::model {

/// What DoRA adds to an adapter (peft/tuners/lora/dora.py, 0.21): y = W (x - drop(x)) + b + gain (W + s B A) drop(x),
/// with gain = magnitude / norm, per output feature. All fp32 [out].
struct Dora {
  at::Tensor magnitude;       // undefined: plain LoRA
  at::Tensor magnitude_grad;  // view of the gradient buffer, overwritten by backward
  at::Tensor weight_squares;  // row_squares(W)
  at::Tensor norm;            // row_norms; backward takes it for a constant, as PEFT does
  at::Tensor gain;

  bool present() const { return magnitude.defined(); }

  void set_norm(const at::Tensor& values);

  /// Writes the gradient of magnitude. Shapes: dy [n, out], any dtype; unscaled [n, out] fp32, (W + s B A) drop(x).
  void write_gradient(const at::Tensor& dy, const at::Tensor& unscaled) const;
};

/// The sum of squares of each row, in fp32. Shapes: weight [out, in], any dtype; returns [out].
at::Tensor row_squares(const at::Tensor& weight);

/// The matrices of row_norms.
struct LowRankSum {
  at::Tensor weight_squares;  // [out] row_squares(W)
  at::Tensor projected;       // [r, out] A W^T
  at::Tensor a, b;            // [r, in], [out, r]
  double scaling = 1.0;
};

/// The L2 norm of each row of W + s B A, [out], without forming that matrix: |w + s b A|^2 = |w|^2 + 2 s <w A^T, b> +
/// s^2 <b A A^T, b>. In fp32 within 1e-6 of the norm, unless s b A nearly cancels w. With B = 0 it is the root of
/// weight_squares to the bit.
at::Tensor row_norms(const LowRankSum& sum);

}  // namespace neoloom::model
