// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace neoloom::launch {

/// The CPU's name as the kernel reports it; "unknown CPU" where it does not.
std::string cpu_model();

/// The vector instruction sets by which LibTorch and oneDNN choose kernels, e.g. "avx512f avx512_bf16 | AVX512".
std::string instruction_sets();

}  // namespace neoloom::launch
