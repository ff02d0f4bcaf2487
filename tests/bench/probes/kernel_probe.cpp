// SPDX-License-Identifier: Apache-2.0
// Compares neoloom's own CUDA kernels with LibTorch's operators on a GPU: values, bits of two runs, time.
#include <iostream>

#include "runtime/core/error.h"
#include "runtime/cuda/plugin.h"
#include "tests/bench/probes/kernel_cases.h"
#include "tests/bench/probes/measure.h"

int main(int argc, char** argv) {
  using namespace neoloom;
  using namespace neoloom::probes;
  const Options options = read_options(argc, argv, "Measures neoloom's own CUDA kernels beside LibTorch's operators.");
  std::unique_ptr<cuda::DevicePlugin> plugin;
  const auto prepare = [&] {
    plugin = cuda::load_device_plugin();
    plugin->select(0);
    core::require(static_cast<bool>(plugin->fused_kernels().residual_norm), core::ErrorKind::kDevice,
                  "This build has no kernels of its own: bash cluster/bootstrap/bootstrap.sh --gpu_tools, then build");
    return prepare_device();
  };
  const auto measure_item = [&](const KernelItem& item) {
    const at::Device device("cuda:0");
    Json line = measure(work_of(item, plugin->fused_kernels(), plugin->current_stream(), device));
    line.erase("tflops");
    line["gigabytes_per_second"] = bytes_of(item) / line["milliseconds"].get<double>() * 1e-6;
    return line;
  };
  return run<KernelItem>(options, kernel_items(), prepare, measure_item, device_works);
}
