// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "model/memory/memory_plan.h"

namespace neoloom::launch {

/// Seconds of one GEMM.
struct GemmSeconds {
  double median = 0.0;
  double fastest = 0.0;
};

/// Measures a GEMM of this shape on this CPU with LibTorch's threads, in calls that take `seconds` together.
GemmSeconds measure_gemm_seconds(const model::MemorySetup& setup, const model::StepGemm& gemm, double seconds);

}  // namespace neoloom::launch
