// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "runtime/cuda/api.h"

namespace neoloom::cuda {

/// LibTorch's CUDA graphs as the calls of the table; defined in the plug-in only.
void add_graph_calls(DeviceApi& api);

}  // namespace neoloom::cuda
