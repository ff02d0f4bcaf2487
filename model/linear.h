// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/adapters/lora.h"
#include "model/products.h"

namespace neoloom::model {

/// One of the six linears of a block as a step sees it: a weight (frozen, or trained when weight_grad is defined), a
/// bias, an adapter.
struct Linear {
  Matrix weight;           // [out, in], any dtype
  at::Tensor bias;         // [out] fp32, or undefined
  at::Tensor weight_grad;  // [out, in] fp32 view of the gradient buffer; undefined: frozen
  at::Tensor bias_grad;    // [out]
  LoraBranch lora;

  bool trains() const { return lora.present() || weight_grad.defined(); }

  /// y = W x + b + s B A drop(x). Shapes: x [n, in] -> [n, out]. `input`: Products::as_input of x, when there is one.
  at::Tensor forward(Products& products, const at::Tensor& x, const std::vector<RowKey>& keys,
                     const at::Tensor& input = {}) const;

  /// Which type x, or dy, may have: what products read, unless an adapter or the weight's gradient reads it, too.
  at::ScalarType input_type(const Products& products) const {
    return trains() ? at::kFloat : products.input_type(weight);
  }

  /// Writes the parameter gradients. Shapes: dy [n, out]; x [n, in], the forward's input.
  /// Returns the gradient of x [n, in], undefined unless `wants_dx`.
  at::Tensor backward(Products& products, const at::Tensor& dy, const at::Tensor& x, const std::vector<RowKey>& keys,
                      bool wants_dx) const;

  /// The same with the gradient of x added to `dx`; a null `dx`: not wanted.
  void backward_into(Products& products, const at::Tensor& dy, const at::Tensor& x, const std::vector<RowKey>& keys,
                     at::Tensor* dx) const;

 private:
  void write_weight_gradients(const at::Tensor& dy, const at::Tensor& x) const;
};

/// LayerNorm with fp32 scale and shift.
struct Norm {
  at::Tensor weight, bias;            // [h] fp32
  at::Tensor weight_grad, bias_grad;  // [h] views of the gradient buffer; undefined: frozen
  double epsilon = 1e-5;

  struct Statistics {
    at::Tensor mean, rstd;  // [n, 1] fp32
  };
  /// Shapes: x [n, h] -> [n, h]; `statistics` may be null.
  at::Tensor forward(const at::Tensor& x, Statistics* statistics) const;
  /// Gradient of x; writes the gradients of scale and shift when they are wanted.
  at::Tensor backward(const at::Tensor& dy, const at::Tensor& x, const Statistics& statistics) const;
};

}  // namespace neoloom::model
