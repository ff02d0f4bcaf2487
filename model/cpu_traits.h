// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "model/options.h"

namespace neoloom::model {

/// Whether this CPU uses packed GEMM for inputs of `compute_dtype`, that is, has a microkernel for it. Elsewhere
/// at::linear and at::mm read the plain matrices.
bool has_packed_gemm(Dtype compute_dtype);

/// Returns the type in which a CPU computes matmuls for a configured compute dtype of `wanted`. float16 becomes
/// float32, since few CPUs have fp16 arithmetic. bfloat16 stays where oneDNN supports it; elsewhere, and where its
/// instruction set is limited below the CPU's, at::linear and at::mm would run element by element. Weights stay in the
/// frozen dtype.
Dtype cpu_compute_dtype(Dtype wanted);

/// Names the CPU's GEMM kernels for run identities, e.g. "float32-panels-avx2 up to AVX2 ". The wording must not
/// change: older runs' identities contain it.
std::string cpu_gemm_kernels();

}  // namespace neoloom::model
