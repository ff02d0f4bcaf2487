// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "runtime/cuda/fused_kernels.h"
#include "runtime/cuda/kernels/pack.h"

namespace neoloom::cuda::kernels {

// gelu_new(x) = x/2 (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3): Hendrycks and Gimpel, arXiv 1606.08415.
inline constexpr float kGeluScale = 0.7978845608028654F;
inline constexpr float kGeluCube = 0.044715F;

NL_HOST_DEVICE float gelu(float x) { return 0.5F * x * (1.0F + tanhf(kGeluScale * (x + kGeluCube * x * x * x))); }

NL_HOST_DEVICE float gelu_grad(float x) {
  const float t = tanhf(kGeluScale * (x + kGeluCube * x * x * x));
  const float du = kGeluScale * (1.0F + 3.0F * kGeluCube * x * x);
  return 0.5F * (1.0F + t) + 0.5F * x * (1.0F - t * t) * du;
}

/// Works on the pack of values that begins at `position`, counted over all rows.
template <class T, int kPackSize>
NL_HOST_DEVICE void run_pack(const BiasGelu& work, int64_t position) {
  float x[kPackSize];
  float bias[kPackSize];
  load<kPackSize>(static_cast<const T*>(work.input) + position, x);
  load<kPackSize>(work.bias + position % work.columns, bias);
  NL_UNROLL
  for (int i = 0; i < kPackSize; ++i) x[i] = to_float(from_float<T>(x[i] + bias[i]));
  store<kPackSize>(x, static_cast<T*>(work.input) + position);
  NL_UNROLL
  for (int i = 0; i < kPackSize; ++i) x[i] = gelu(x[i]);
  store<kPackSize>(x, static_cast<T*>(work.activated) + position);
}

template <class T, int kPackSize>
NL_HOST_DEVICE void run_pack(const BiasGeluGrad& work, int64_t position) {
  float x[kPackSize];
  float d[kPackSize];
  load<kPackSize>(static_cast<const T*>(work.input) + position, x);
  load<kPackSize>(static_cast<const T*>(work.d_activated) + position, d);
  NL_UNROLL
  for (int i = 0; i < kPackSize; ++i) d[i] *= gelu_grad(x[i]);
  store<kPackSize>(d, static_cast<T*>(work.d_input) + position);
}

}  // namespace neoloom::cuda::kernels
