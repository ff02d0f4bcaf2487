// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "runtime/core/error.h"
#include "runtime/cuda/api.h"

namespace neoloom::cuda {

/// Throws: Error(kDevice) with the call and CUDA's text.
inline void check_device(const DeviceApi& api, int result, const char* call) {
  if (result == 0) return;
  core::fail(core::ErrorKind::kDevice, "CUDA: {} failed: {} (error {}). Check the device with nvidia-smi", call,
             api.error_text(result), result);
}

}  // namespace neoloom::cuda
