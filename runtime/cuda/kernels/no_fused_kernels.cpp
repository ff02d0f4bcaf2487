// SPDX-License-Identifier: Apache-2.0
// For builds without CUDA's compiler.
#include "runtime/cuda/fused_kernels.h"

namespace neoloom::cuda {

FusedKernels fused_kernels() { return {}; }

}  // namespace neoloom::cuda
