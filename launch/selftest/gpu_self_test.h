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

// What training on a GPU rests on beyond single kernels. Each function takes the thing it tests, so that unit tests
// drive it on CPU tensors.

/// The 16-bit operators of GPUs, forward and backward: products with fp32 results, new and added to; flash
/// attention where the device has it (global, windowed, many samples, last tokens only), and whether it repeats its
/// bits; cuDNN attention on Hopper. Against batched products in fp32 on the CPU.
std::vector<KernelTest> device_operator_tests(const model::CudaOperators& operators, const model::DeviceTraits& traits,
                                              const std::string& device);
/// The same with LibTorch's operators.
std::vector<KernelTest> device_operator_tests(const model::DeviceTraits& traits, const std::string& device);

/// Work in two parts that is recorded and played on new inputs: every bit of what kernels one by one give.
using MakeGraphCache = std::function<std::unique_ptr<cuda::GraphCache>(std::function<void(const std::string&)> log)>;
KernelTest graph_test(const MakeGraphCache& make_graph_cache, const std::string& device);

/// A sum of a communicator of one rank for each of int64 and fp32, under way together: the values must come back
/// unchanged. The communicator must outlive the tests.
std::vector<KernelTest> lone_sum_tests(comm::Communicator& communicator, const std::string& device);

}  // namespace neoloom::launch
