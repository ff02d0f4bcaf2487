// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "launch/selftest/self_test.h"

namespace neoloom::launch {

/// Returns tests of neoloom's CPU kernels, called as training and inference call them, against their definitions in
/// fp64. Includes kernels that this CPU never runs, with the reason.
std::vector<KernelTest> cpu_kernel_tests();

}  // namespace neoloom::launch
