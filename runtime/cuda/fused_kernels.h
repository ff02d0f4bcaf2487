// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

#include "runtime/cuda/api.h"

namespace neoloom::cuda {

// neoloom's own CUDA kernels, for what LibTorch's operators cannot fuse. Training does not use them: they stay off
// until a device has shown that their results are right and that they are worth it. `neoloom doctor` tests them.
//
// Shapes: matrices [rows, columns] without gaps; parameters [columns] fp32; statistics [rows] fp32.

enum class ElementType { kFloat32, kFloat16, kBFloat16 };

/// sum = residual + bias + delta; normed = (sum - mean) * rstd * weight + shift. Biased variance. `sum` may be
/// `residual`.
struct ResidualNorm {
  int64_t rows = 0, columns = 0;
  ElementType type = ElementType::kFloat32;  // of delta and normed
  const float* residual = nullptr;
  const void* delta = nullptr;
  const float* bias = nullptr;  // null: none
  const float* weight = nullptr;
  const float* shift = nullptr;
  float epsilon = 1e-5F;
  float* sum = nullptr;
  void* normed = nullptr;
  float* mean = nullptr;
  float* rstd = nullptr;
};

/// d_sum += the gradient of ResidualNorm's `sum` through the norm. Before, d_sum is the gradient through the residual.
/// The norm's parameters are frozen and get no gradient.
struct ResidualNormGrad {
  int64_t rows = 0, columns = 0;
  const float* d_normed = nullptr;
  const float* sum = nullptr;
  const float* weight = nullptr;
  const float* mean = nullptr;
  const float* rstd = nullptr;
  float* d_sum = nullptr;
};

/// input += bias; activated = gelu_new(input).
struct BiasGelu {
  int64_t rows = 0, columns = 0;
  ElementType type = ElementType::kFloat32;  // of input and activated
  const float* bias = nullptr;
  void* input = nullptr;
  void* activated = nullptr;
};

/// d_input = d_activated * gelu_new'(input), with the input that BiasGelu left. `d_input` may be `d_activated`.
struct BiasGeluGrad {
  int64_t rows = 0, columns = 0;
  ElementType type = ElementType::kFloat32;
  const void* input = nullptr;
  const void* d_activated = nullptr;
  void* d_input = nullptr;
};

/// Each starts a kernel on `stream` of the selected device and returns a cudaError_t. None allocates or waits, so a
/// CUDA graph can capture them. Rows that are too long for a block return cudaErrorNotSupported. Empty: built without a
/// CUDA compiler.
struct FusedKernels {
  std::function<int(const ResidualNorm& work, StreamHandle stream)> residual_norm;
  std::function<int(const ResidualNormGrad& work, StreamHandle stream)> residual_norm_grad;
  std::function<int(const BiasGelu& work, StreamHandle stream)> bias_gelu;
  std::function<int(const BiasGeluGrad& work, StreamHandle stream)> bias_gelu_grad;
};

/// The production table; defined in the plug-in only.
FusedKernels fused_kernels();

}  // namespace neoloom::cuda
