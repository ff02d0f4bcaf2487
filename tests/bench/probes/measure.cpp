// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/probes/measure.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/cuda/Sleep.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "runtime/core/environment.h"
#include "runtime/core/error.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::probes {

namespace {

constexpr int kWarmUpRuns = 2;
constexpr int kTimedRuns = 11;
// The GPU waits this long, about 2 ms, while the host launches all runs: so no run waits for its launch.
constexpr int64_t kSleepCycles = 3'000'000;

void check(cudaError_t result, const char* call) {
  core::require(result == cudaSuccess, core::ErrorKind::kDevice, "CUDA: {} failed: {}", call,
                cudaGetErrorString(result));
}

using Event = core::UniqueHandle<core::PointerTraits<cudaEvent_t, cudaEventDestroy>>;

Event record() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "cudaEventCreate");
  Event owner(event);
  check(cudaEventRecord(event), "cudaEventRecord");
  return owner;
}

/// What runtime/cuda sets for deterministic runs, except the choice of deterministic operators.
void set_up_libtorch() {
  core::set_environment_default("CUBLAS_WORKSPACE_CONFIG", ":4096:8");
  at::Context& context = at::globalContext();
  context.setAllowFP16ReductionCuBLAS(false);
  context.setAllowBF16ReductionCuBLAS(false);
  context.setAllowTF32CuBLAS(false);
  context.setDeterministicFillUninitializedMemory(false);
}

bool equal_bits(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const at::Tensor& x, const at::Tensor& y) { return at::equal(x, y); });
}

}  // namespace

double median_milliseconds(const std::function<void()>& run, int runs) {
  for (int i = 0; i < kWarmUpRuns; ++i) run();
  at::cuda::sleep(kSleepCycles);
  std::vector<Event> events;
  events.push_back(record());
  for (int i = 0; i < runs; ++i) {
    run();
    events.push_back(record());
  }
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  std::vector<float> times(static_cast<size_t>(runs));
  for (size_t i = 0; i < times.size(); ++i) {
    check(cudaEventElapsedTime(&times[i], events[i].get(), events[i + 1].get()), "cudaEventElapsedTime");
  }
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[static_cast<size_t>(runs / 2)];
}

Json measure(const Work& work) {
  const auto reset = [&] {
    if (work.reset) work.reset();
  };
  reset();
  std::vector<at::Tensor> first;
  for (const at::Tensor& result : work.run()) first.push_back(result.clone());
  reset();
  const std::vector<at::Tensor> second = work.run();
  const bool equal = equal_bits(first, second);
  const double error = work.error(second);
  const double milliseconds = median_milliseconds([&] { work.run(); }, kTimedRuns);
  return {{"milliseconds", milliseconds},
          {"tflops", work.flops / milliseconds * 1e-9},
          {"equal_bits", equal},
          {"relative_error", error}};
}

Json prepare_device() {
  int devices = 0;
  const cudaError_t result = cudaGetDeviceCount(&devices);
  core::require(result == cudaSuccess && devices > 0, core::ErrorKind::kDevice,
                "This probe measures a GPU, and CUDA finds none: {}. Use --list to see the cases.",
                result == cudaSuccess ? "no device" : cudaGetErrorString(result));
  set_up_libtorch();
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  int runtime = 0;
  int driver = 0;
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  return {{"machine",
           {{"device", std::string(properties.name)},
            {"capability", fmt::format("{}.{}", properties.major, properties.minor)},
            {"cuda_runtime", runtime},
            {"cuda_driver", driver},
            {"cudnn", cudnnGetVersion()},
            {"cublaslt", cublasLtGetVersion()}}}};
}

bool device_works() { return cudaDeviceSynchronize() == cudaSuccess; }

at::Tensor random_values(at::IntArrayRef shape, at::ScalarType dtype, double scale, uint64_t seed) {
  at::manual_seed(seed);
  return at::randn(shape, at::TensorOptions().dtype(at::kFloat).device(at::kCUDA)).mul_(scale).to(dtype);
}

}  // namespace neoloom::probes
