// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

#include "model/device_traits.h"
#include "model/options.h"

namespace neoloom::launch {

/// A GPU as its vendor states it. Rates are peaks of dense matrices, with sums in fp32. The sources are NVIDIA's data
/// sheets of A10, A30, A40, A100, H100, H200, L4 and L40S, and its white papers of the GA102 and Ada architectures for
/// RTX 3090 and 4090. Where they state a rate with sparsity, half of it stands here. Fp32 is the rate without tensor
/// cores, since neoloom turns TF32 off.
struct DeviceSheet {
  const char* name;        // as --device takes it
  const char* product;     // in full
  int capability_major;    // of CUDA
  int capability_minor;    // likewise
  double memory_gb;        // 10^9 bytes
  double gigabytes_per_s;  // memory bandwidth
  double fp32_tflops;      // TFLOP/s
  double half_tflops;      // bf16 and fp16, which are equal on all of these
  double tflops(model::Dtype compute_dtype) const {
    return compute_dtype == model::Dtype::kFloat32 ? fp32_tflops : half_tflops;
  }
};

std::span<const DeviceSheet> device_sheets();

/// Returns null for another name. Lower and upper case are alike.
const DeviceSheet* find_device_sheet(const std::string& name);

/// "a10, a30, ...".
std::string device_names();

}  // namespace neoloom::launch
