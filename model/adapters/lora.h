// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/adapters/dropout.h"

namespace neoloom::model {

/// One adapter as a step sees it: y += s * drop(x) A^T B^T (PEFT's plain LoRA), everything in fp32.
struct LoraBranch {
  at::Tensor a;       // [r, in]; undefined: no adapter here
  at::Tensor b;       // [out, r]
  at::Tensor a_grad;  // views of the gradient buffer, overwritten by backward
  at::Tensor b_grad;
  double scaling = 1.0;
  DropoutMask dropout;  // probability 0 outside training

  bool present() const { return a.defined(); }
  /// Shapes: x [n, in], y [n, out]; keys name the rows.
  void add_forward(at::Tensor& y, const at::Tensor& x, const std::vector<RowKey>& keys) const;
  /// Gradients of A and B, and, when `dx` is not null, the branch's part added to dx [n, in].
  void backward(const at::Tensor& dy, const at::Tensor& x, const std::vector<RowKey>& keys, at::Tensor* dx) const;
};

}  // namespace neoloom::model
