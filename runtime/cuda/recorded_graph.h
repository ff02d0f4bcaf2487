// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "runtime/cuda/api.h"

namespace neoloom::cuda {

/// Fills in the graph functions of `api` with LibTorch's CUDAGraph. Defined in the plug-in only.
void add_graph_calls(DeviceApi& api);

}  // namespace neoloom::cuda
