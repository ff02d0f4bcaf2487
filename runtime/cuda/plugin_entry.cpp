// SPDX-License-Identifier: Apache-2.0
// Defines the two symbols that load_device_plugin() looks up in the library.
#include <ATen/Context.h>

#include "runtime/core/environment.h"
#include "runtime/cuda/device_plugin.h"

namespace neoloom::cuda {
namespace {

void restrict_kernels(bool deterministic) {
  at::Context& context = at::globalContext();
  context.setAllowFP16ReductionCuBLAS(false);
  context.setAllowBF16ReductionCuBLAS(false);
  context.setAllowTF32CuBLAS(false);
  if (!deterministic) return;
  // cuBLAS reads it when it makes its first handle. Without it, split-K sums may run in any order.
  core::set_environment_default("CUBLAS_WORKSPACE_CONFIG", ":4096:8");
  context.setDeterministicAlgorithms(true, false);
  // Every buffer here is written before it is read; filling it first would only cost bandwidth.
  context.setDeterministicFillUninitializedMemory(false);
  context.setDeterministicCuDNN(true);
  context.setBenchmarkCuDNN(false);
  context.setSDPUseCuDNN(false);  // its backward is not deterministic
}

}  // namespace
}  // namespace neoloom::cuda

extern "C" int neoloom_plugin_interface() { return neoloom::cuda::kPluginInterface; }

extern "C" neoloom::cuda::DevicePlugin* neoloom_create_device_plugin() {
  using namespace neoloom::cuda;
  return make_device_plugin(nccl_api(), device_api(), fused_kernels(), restrict_kernels).release();
}
