// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "launch/selftest/self_test.h"

namespace neoloom::launch {

/// neoloom's own CPU kernels, each as training and inference call it, against the definition in fp64. The kernels that
/// this CPU never runs are listed, too, with the reason.
std::vector<KernelTest> cpu_kernel_tests();

}  // namespace neoloom::launch
