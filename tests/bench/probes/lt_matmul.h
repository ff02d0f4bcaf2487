// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <cublasLt.h>

#include <memory>
#include <vector>

namespace neoloom::probes {

/// out = alpha x W + beta sum, with an epilogue. Row-major, the last dimension contiguous, any row stride.
struct LtCall {
  at::Tensor x;       // [n, k] 16 bits
  at::Tensor weight;  // [m, k] if `transposed`, else [k, m]; type of x
  bool transposed = false;
  at::Tensor out;  // [n, m] 16 bits or fp32
  at::Tensor sum;  // [n, m] type of out, may be `out`; undefined: beta is 0
  double alpha = 1.0;
  double beta = 0.0;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  at::Tensor bias;  // [m] type of out; BIAS epilogues
  at::Tensor aux;   // [n, m] type of out: what GELU_AUX writes and DGELU reads
};

/// One call of cublasLt with fp32 sums, on the default stream.
class LtMatmul {
 public:
  /// Asks for the first `algorithms` algorithms with a workspace of 64 MiB. Throws: Error(kDevice) if there is none.
  LtMatmul(LtCall call, int algorithms);
  ~LtMatmul();
  LtMatmul(LtMatmul&&) noexcept;

  size_t algorithms() const;
  /// Chooses the algorithm of run(), 0 at first.
  void choose(size_t algorithm);
  void run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace neoloom::probes
