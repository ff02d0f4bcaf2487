// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "model/cpu/packed_gemm.h"
#include "model/cpu/packed_weights.h"
#include "model/options.h"
#include "model/scalar_type.h"

namespace neoloom::model {

/// Matrix products with weights that are stored in any dtype. Activations come and go in fp32; what happens between is
/// decided by the compute dtype and by what the device multiplies well:
///   packed weights          on CPUs that multiply them (see packed weights.h), when the matrix has them;
///   16-bit inputs   where the compute dtype is 16 bit and the device has arithmetic for it;
///   fp32            everywhere else: 16-bit weights are converted slice by slice into a bounded scratch.
/// On a CPU without fp16 arithmetic a product of fp16 matrices runs element by element, hundreds of times slower.
class Matmul {
 public:
  /// Elements of the scratch for a slice of weights. 16 MiB of fp32: large enough for full GEMM speed, small enough to
  /// stay near the cache.
  static constexpr int64_t kScratchElements = int64_t{4} << 20;

  explicit Matmul(Dtype compute_dtype) : compute_dtype_(compute_dtype) {}

  /// What products with `weight` read: an input of this type needs no conversion.
  at::ScalarType input_type(const Matrix& weight) const;

  /// x W^T + terms. Shapes: x [n, in] fp32 or in that type; weight [out, in]; returns [n, out] in
  /// `type`, which is fp32 or bfloat16.
  at::Tensor forward(const at::Tensor& x, const Matrix& weight, const Epilogue& terms,
                     at::ScalarType type = at::kFloat);

  /// The same in fp32 written to `y`, which may be replaced where it does not fit the way of multiplying.
  void forward_into(at::Tensor& y, const at::Tensor& x, const Matrix& weight, const Epilogue& terms);

  /// gelu_new of forward, [n, out], and what its backward pass reads, in tiles (see EpilogueOutputs) where the
  /// host's products write packed weights; both in the type that products with `weight` read.
  struct Activated {
    SavedGelu saved;
    at::Tensor values;
  };
  Activated forward_activated(const at::Tensor& x, const Matrix& weight, const Epilogue& terms, GeluKeeps keeps);

  /// dy W + terms, the gradient of x. Shapes: dy [n, out] fp32 or in the type that products read; weight [out, in];
  /// returns [n, in] in `type`, or in that of `through`, by whose gelu_new' it is multiplied when defined: what
  /// forward_activated saved before it.
  at::Tensor input_gradient(const at::Tensor& dy, const Matrix& weight, const Epilogue& terms = {},
                            at::ScalarType type = at::kFloat, const SavedGelu& through = {});

  /// dy W + terms, added to `dx` [n, in] fp32.
  void add_input_gradient(at::Tensor& dx, const at::Tensor& dy, const Matrix& weight, const Epilogue& terms = {});

 private:
  /// Whether products with `weight` go to packed weights; else they are unfused.
  bool uses_packed_gemm(const Matrix& weight) const;
  void packed_forward(const at::Tensor& x, const Matrix& weight, const Epilogue& terms,
                      const EpilogueOutputs& ends) const;
  at::Tensor gemm_a(const at::Tensor& x) const;
  GemmB backward_b(const Matrix& weight) const;
  at::Tensor plain_forward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
  at::Tensor plain_input_gradient(const at::Tensor& dy, const at::Tensor& weight);
  void add_plain_input_gradient(at::Tensor& dx, const at::Tensor& dy, const at::Tensor& weight);
  at::Tensor unfused_forward(const at::Tensor& x, const at::Tensor& weight, const Epilogue& terms);
  bool multiplies_16bit(const at::Tensor& weight) const;
  at::ScalarType input_type() const;
  at::Tensor fp32_rows(const at::Tensor& weight, int64_t begin, int64_t rows);

  Dtype compute_dtype_;
  at::Tensor scratch_;  // fp32 copy of a slice of a 16-bit weight
};

}  // namespace neoloom::model
