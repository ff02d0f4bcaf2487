// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/cpu/elementwise.h"
#include "model/cpu/matmul.h"
#include "model/lora/lora.h"

namespace neoloom::model {

/// One of the six linears of a block: a weight (trained if weight_grad is defined, else frozen), a bias, an adapter
/// (plain LoRA in the formulas below; for DoRA see lora/dora.h).
struct Linear {
  Matrix weight;           // [out, in], any dtype
  at::Tensor bias;         // [out] fp32, or undefined
  at::Tensor weight_grad;  // [out, in] fp32 view of the gradient buffer; undefined: frozen
  at::Tensor bias_grad;    // [out]; likewise
  LoraBranch lora;
  DropoutMask output_dropout;  // resid_dropout of out_proj and c_proj; Block applies it

  /// Whether backward reads the input.
  bool trains_matrix() const { return lora.present() || weight_grad.defined(); }
  bool trains() const { return trains_matrix() || bias_grad.defined(); }

  /// y = W x + b + s B A drop(x) + residual. Shapes: x [n, in] fp32 or Matmul::input_type; residual [n, out] fp32 or
  /// undefined; returns [n, out] in `type`. `down` (may be null) receives LoraBranch::down for backward.
  at::Tensor forward(Matmul& matmul, const at::Tensor& x, const std::vector<RowKey>& keys, at::Tensor* down = nullptr,
                     const at::Tensor& residual = {}, at::ScalarType type = at::kFloat) const;

  /// gelu_new of forward; see Matmul::forward_activated.
  Matmul::Activated forward_activated(Matmul& matmul, const at::Tensor& x, const std::vector<RowKey>& keys,
                                      GeluKeeps keeps, at::Tensor* down = nullptr) const;

  /// Inputs of backward. Shapes: dy [n, out]; x [n, in], forward's input, needed if the linear trains; down [n, r],
  /// from forward.
  struct Upstream {
    at::Tensor dy, x, down;
  };

  /// Writes the parameter gradients. Returns the gradient of x [n, in] in `type`, multiplied by the gelu_new' of
  /// `through` if defined (see Matmul::input_gradient); undefined unless `needs_dx`.
  at::Tensor backward(Matmul& matmul, const Upstream& upstream, const std::vector<RowKey>& keys, bool needs_dx,
                      at::ScalarType type = at::kFloat, const SavedGelu& through = {}) const;

  /// The same, but adds the gradient of x to `dx` in fp32, unless `dx` is null.
  void backward_into(Matmul& matmul, const Upstream& upstream, const std::vector<RowKey>& keys, at::Tensor* dx) const;

  /// Writes the gradients of those biases that train, the adapter's among them. Shapes: dy [n, out].
  void write_bias_gradients(const at::Tensor& dy) const;

 private:
  /// Input and terms of the GEMM that computes forward.
  struct ForwardGemm {
    at::Tensor x;
    Epilogue terms;
  };
  ForwardGemm forward_gemm(Matmul& matmul, const at::Tensor& x, const std::vector<RowKey>& keys, at::Tensor* down,
                           const at::Tensor& residual = {}) const;
  /// The GEMM whose result is the gradient of x: dy W + terms.
  struct BackwardGemm {
    at::Tensor dy;
    Epilogue terms;
  };
  /// Writes the parameter gradients.
  BackwardGemm write_gradients(Matmul& matmul, const Upstream& upstream, const std::vector<RowKey>& keys,
                               bool needs_dx) const;
  BackwardGemm write_dora_gradients(Matmul& matmul, const Upstream& upstream, const std::vector<RowKey>& keys,
                                    bool needs_dx) const;
};

/// LayerNorm with fp32 scale and shift.
struct Norm {
  at::Tensor weight, bias;            // [h] fp32
  at::Tensor weight_grad, bias_grad;  // [h] views of the gradient buffer; each undefined: frozen
  double epsilon = 1e-5;

  bool trains() const { return weight_grad.defined() || bias_grad.defined(); }

  struct Statistics {
    at::Tensor mean, rstd;  // [n, 1] fp32
  };
  /// Shapes: x [n, h] -> [n, h]; `statistics` may be null.
  at::Tensor forward(const at::Tensor& x, Statistics* statistics) const;
  /// Returns the gradient of x; writes those of scale and shift if they are trained.
  at::Tensor backward(const at::Tensor& dy, const at::Tensor& x, const Statistics& statistics) const;

  /// The same by cpu/elementwise.h: forward returns `type`, fp32 or bfloat16, and the gradient of x is added to `sum`
  /// [n, h] fp32. CPU tensors only, columns contiguous.
  at::Tensor cpu_forward(const at::Tensor& x, Statistics* statistics, at::ScalarType type) const;
  void cpu_add_gradient(const at::Tensor& dy, const at::Tensor& x, const Statistics& statistics, at::Tensor& sum) const;

 private:
  cpu::LayerNorm parameters() const;
};

}  // namespace neoloom::model
