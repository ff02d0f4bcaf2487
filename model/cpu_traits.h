// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "model/options.h"

namespace neoloom::model {

/// Whether this CPU multiplies packed weights, for products with inputs of `compute_dtype`: it has a microkernel.
/// Where it has none, at::linear and at::mm read the plain matrices.
bool has_packed_gemm(Dtype compute_dtype);

/// What a CPU computes products in that are to have inputs of type `wanted` (weights stay as they are stored and are
/// converted to fp32 block by block). Never float16: few CPUs have arithmetic for it, and float32 is what the result is
/// compared with. bfloat16 where oneDNN does it: elsewhere, and where its instruction sets are limited below the CPU's,
/// at::linear and at::mm go element by element.
Dtype cpu_compute_dtype(Dtype wanted);

/// The CPU's own GEMM kernels, for run identities: "float32-panels-avx2 up to AVX2 ". The words are part of the
/// identities of older runs and stay.
std::string cpu_gemm_kernels();

}  // namespace neoloom::model
