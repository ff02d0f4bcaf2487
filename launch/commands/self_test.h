// SPDX-License-Identifier: Apache-2.0
#pragma once

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

}  // namespace neoloom::launch
