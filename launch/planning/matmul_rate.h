// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "model/memory/memory_plan.h"

namespace neoloom::launch {

/// Measures the seconds of one GEMM of this shape on this CPU with LibTorch's threads: the median of calls that take
/// `seconds` together.
double measure_gemm_seconds(const model::MemorySetup& setup, const model::StepGemm& gemm, double seconds);

/// Measures, for about half a second, the FLOP/s of matmuls with an MLP matrix of the model on this CPU, forward and
/// backward, with LibTorch's threads and `rows` rows.
double measure_matmul_rate(const model::MemorySetup& setup, int64_t rows);

}  // namespace neoloom::launch
