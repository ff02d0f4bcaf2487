// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

namespace neoloom::launch {

/// One kernel on one device against float64 on the CPU.
struct KernelResult {
  std::string kernel;
  double difference = 0.0;  // max |device - reference| / max |reference|
  double tolerance = 0.0;
  double milliseconds = 0.0;
  std::string error;  // what the library threw; empty: it ran

  bool passed() const { return error.empty() && difference <= tolerance; }
};

/// Runs the kernels that training uses on `device` ("cpu", "cuda:0"). A GPU wants its plug-in loaded and selected.
std::vector<KernelResult> test_kernels(const std::string& device);

/// Runs `test`, which fills in what it finds. What a library throws becomes the result's error.
KernelResult measured(const std::string& kernel, double tolerance,
                      const std::function<void(KernelResult& result)>& test);

/// The same normal values on every machine: [shape] fp32 on the CPU.
at::Tensor random_values(at::IntArrayRef shape, uint64_t seed);

/// max |result - reference| / max |reference|; infinite where the result is not finite. `reference` is fp64 on the CPU.
double relative_difference(const at::Tensor& result, const at::Tensor& reference);

}  // namespace neoloom::launch
