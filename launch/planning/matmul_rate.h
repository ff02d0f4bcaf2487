// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "model/memory/memory_plan.h"

namespace neoloom::launch {

/// Floating-point operations a second that products with an MLP matrix of the model reach on this CPU, forward and
/// backward, with LibTorch's threads and `rows` rows. Measures for about half a second.
double measure_matmul_rate(const model::MemorySetup& setup, int64_t rows);

}  // namespace neoloom::launch
