// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "launch/selftest/self_test.h"
#include "model/cuda/attention_choice.h"
#include "model/cuda/operators.h"
#include "runtime/comm/communicator.h"
#include "runtime/cuda/graph_cache.h"

namespace neoloom::launch {

// Tests of what training on a GPU needs beyond LibTorch's single operators. Each function takes the object that it
// tests, so that unit tests can run it on CPU tensors.

/// Tests the GPU's 16-bit operators, forward and backward, against batched matmuls in fp32 on the CPU: matmuls with
/// fp32 results, written or added; flash attention where the device has it (global, windowed, many samples, last tokens
/// only), and whether it repeats its bits; cuDNN attention on Hopper.
std::vector<KernelTest> device_operator_tests(const model::CudaOperators& operators, const model::DeviceTraits& traits,
                                              const std::string& device);
/// The same with LibTorch's operators.
std::vector<KernelTest> device_operator_tests(const model::DeviceTraits& traits, const std::string& device);

/// Captures work in two parts and replays it on new inputs. The results must equal those of eager kernels, bit for bit.
using MakeGraphCache = std::function<std::unique_ptr<cuda::GraphCache>(std::function<void(const std::string&)> log)>;
KernelTest graph_test(const MakeGraphCache& make_graph_cache, const std::string& device);

/// Runs an int64 and an fp32 sum of a communicator of one rank, both in flight together. The values must not change.
/// The communicator must outlive the tests.
std::vector<KernelTest> lone_sum_tests(comm::Communicator& communicator, const std::string& device);

}  // namespace neoloom::launch
