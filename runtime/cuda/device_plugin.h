// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "runtime/cuda/api.h"
#include "runtime/cuda/fused_kernels.h"
#include "runtime/cuda/plugin.h"

namespace neoloom::cuda {

/// Makes a DevicePlugin over the three tables. `restrict_kernels` implements DevicePlugin::restrict_kernels.
std::unique_ptr<DevicePlugin> make_device_plugin(NcclApi nccl, DeviceApi device, FusedKernels kernels,
                                                 std::function<void(bool deterministic)> restrict_kernels);

}  // namespace neoloom::cuda
