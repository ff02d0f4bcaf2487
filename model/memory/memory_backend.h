// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "model/gpt_neo/backend.h"
#include "model/memory/memory_plan.h"

namespace neoloom::model {

inline constexpr int64_t kFp32Bytes = 4;
inline constexpr int64_t kLowpBytes = 2;  // of a 16-bit type

// Backends for tensors on the meta device. The memory plan runs the network on them under a MemoryLedger.

inline at::Tensor make(at::IntArrayRef sizes, at::ScalarType type) {
  return at::empty(sizes, at::TensorOptions().dtype(type).device(at::kMeta));
}

/// For samples of at most `longest` tokens. Adds each GEMM to `gemms`, which may be null.
std::unique_ptr<Backend> make_cpu_memory_backend(const MemorySetup& setup, int64_t longest,
                                                 std::vector<StepGemm>* gemms);
std::unique_ptr<Backend> make_cuda_memory_backend(const MemorySetup& setup);

}  // namespace neoloom::model
