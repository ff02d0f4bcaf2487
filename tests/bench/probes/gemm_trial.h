// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/bench/probes/gemm_cases.h"
#include "tests/bench/probes/measure.h"

namespace neoloom::probes {

/// Measures one item on the GPU. What cublasLt computes has "algorithms", how many it offered, "best", the index of the
/// fastest, and "first_milliseconds", the time of the first.
Json measure_gemm(const GemmItem& item);

}  // namespace neoloom::probes
