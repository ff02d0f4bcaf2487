// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "model/memory/memory_plan.h"

namespace neoloom::launch {

/// Measures the seconds of one GEMM of this shape on this CPU with LibTorch's threads: the median of calls that take
/// `seconds` together.
double measure_gemm_seconds(const model::MemorySetup& setup, const model::StepGemm& gemm, double seconds);

}  // namespace neoloom::launch
