// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "model/cpu/packed_gemm.h"
#include "model/cpu/packed_weights.h"
#include "model/options.h"
#include "model/scalar_type.h"

namespace neoloom::model {

/// Matmuls with weights of any dtype on the CPU. The compute dtype and the CPU decide how:
///   packed GEMM     where the CPU has a microkernel (packed_weights.h) and the matrix has packed weights;
///   16-bit inputs   where the compute dtype has 16 bits and the CPU has arithmetic for it;
///   fp32            everywhere else: 16-bit weights are converted slice by slice to a bounded scratch buffer.
/// A matmul of fp16 matrices on a CPU without fp16 arithmetic would run element by element, hundreds of times slower.
class Matmul {
 public:
  /// Elements of the scratch buffer for a slice of weights: 16 MiB of fp32, large enough for full GEMM speed, small
  /// enough to stay near the cache.
  static constexpr int64_t kScratchElements = int64_t{4} << 20;

  explicit Matmul(Dtype compute_dtype) : compute_dtype_(compute_dtype) {}

  /// Type of the input of matmuls with `weight` ("input type" below): an input of this type needs no conversion.
  at::ScalarType input_type(const Matrix& weight) const;

  /// x W^T + terms. Shapes: x [n, in] fp32 or the input type; weight [out, in]; returns [n, out] in `type`, which is
  /// fp32 or bfloat16.
  at::Tensor forward(const at::Tensor& x, const Matrix& weight, const Epilogue& terms,
                     at::ScalarType type = at::kFloat);

  /// The same in fp32, written to `y`. May assign a new tensor to `y`.
  void forward_into(at::Tensor& y, const at::Tensor& x, const Matrix& weight, const Epilogue& terms);

  /// gelu_new of forward, [n, out], and what its backward pass reads, both in the input type. With packed GEMM the
  /// latter is in tiles (see EpilogueOutputs).
  struct Activated {
    SavedGelu saved;
    at::Tensor values;
  };
  Activated forward_activated(const at::Tensor& x, const Matrix& weight, const Epilogue& terms, GeluKeeps keeps);

  /// dy W + terms, without scale, the gradient of x. If `through` is defined, which forward_activated saved, the result
  /// is multiplied by its gelu_new'. Shapes: dy [n, out] fp32 or the input type; weight [out, in]; returns [n, in] in
  /// `type`, or in the type of `through` if defined.
  at::Tensor input_gradient(const at::Tensor& dy, const Matrix& weight, const Epilogue& terms = {},
                            at::ScalarType type = at::kFloat, const SavedGelu& through = {});

  /// dy W + terms, added to `dx` [n, in] fp32.
  void add_input_gradient(at::Tensor& dx, const at::Tensor& dy, const Matrix& weight, const Epilogue& terms = {});

 private:
  /// Whether matmuls with `weight` use packed GEMM; else the epilogue is not fused.
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
