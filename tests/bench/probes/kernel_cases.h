// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "runtime/cuda/fused_kernels.h"
#include "tests/bench/probes/probe.h"
#include "tests/bench/probes/work.h"

namespace neoloom::probes {

enum class Operation { kResidualNorm, kResidualNormGrad, kBiasGelu, kBiasGeluGrad };

/// One operation on [rows, columns], by neoloom's own kernel or by LibTorch's operators.
struct KernelItem : Item {
  Operation operation = Operation::kResidualNorm;
  at::ScalarType dtype = at::kBFloat16;
  int64_t rows = 0, columns = 0;
  bool own = false;
};

/// Every operation in the shapes of GPT-Neo, the own kernel and LibTorch's operators in turn.
std::vector<KernelItem> kernel_items();

/// Bytes that the operation must read and write at least.
double bytes_of(const KernelItem& item);

/// Makes the inputs on `device`. The reference is computed in fp64 from the same rounded inputs.
Work work_of(const KernelItem& item, const cuda::FusedKernels& kernels, cuda::StreamHandle stream, at::Device device);

}  // namespace neoloom::probes
