// SPDX-License-Identifier: Apache-2.0
#include "launch/selftest/self_test.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "runtime/core/clock.h"

namespace neoloom::launch {
namespace {

using Tensors = std::vector<at::Tensor>;

struct Kernel {
  std::string name;
  Tensors inputs;  // CPU, fp32 or integer
  std::function<at::Tensor(const Tensors&)> compute;
  at::ScalarType dtype = at::kFloat;  // of floating-point inputs
  double tolerance = 1e-5;
};

std::vector<Kernel> training_kernels() {
  const at::Tensor a = random_values({192, 256}, 1), b = random_values({256, 320}, 2);
  const at::Tensor heads = random_values({2, 4, 96, 64}, 3), keys = random_values({2, 4, 96, 64}, 4),
                   values = random_values({2, 4, 96, 64}, 5);
  const at::Tensor rows = at::arange(0, 192, 3, at::TensorOptions(at::kLong));
  const auto product = [](const Tensors& in) { return at::mm(in[0], in[1]); };
  return {
      {"matrix product fp32", {a, b}, product},
      {"matrix product fp16", {a, b}, product, at::kHalf, 2e-3},
      {"matrix product bf16", {a, b}, product, at::kBFloat16, 1e-2},
      {"layer norm", {a}, [](const Tensors& in) { return at::layer_norm(in[0], {256}); }},
      {"GELU (tanh)", {a}, [](const Tensors& in) { return at::gelu(in[0], "tanh"); }},
      {"GELU backward", {a, a}, [](const Tensors& in) { return at::gelu_backward(in[0], in[1], "tanh"); }},
      {"softmax", {a}, [](const Tensors& in) { return at::softmax(in[0], 1); }},
      {"log-softmax", {a}, [](const Tensors& in) { return at::log_softmax(in[0], 1); }},
      {"embedding", {a, rows}, [](const Tensors& in) { return at::embedding(in[0], in[1]); }},
      {"row selection", {a, rows}, [](const Tensors& in) { return at::index_select(in[0], 0, in[1]); }},
      {"causal attention",
       {heads, keys, values},
       [](const Tensors& in) { return at::scaled_dot_product_attention(in[0], in[1], in[2], {}, 0.0, true); }},
      {"reduction in fp64", {a}, [](const Tensors& in) { return in[0].sum(at::kDouble); }},
  };
}

at::Tensor as(const at::Tensor& input, at::Device device, at::ScalarType dtype) {
  return input.to(device, input.is_floating_point() ? dtype : input.scalar_type());
}

Tensors all_as(const Tensors& inputs, at::Device device, at::ScalarType dtype) {
  Tensors out;
  for (const at::Tensor& input : inputs) out.push_back(as(input, device, dtype));
  return out;
}

KernelResult test(const Kernel& kernel, at::Device device) {
  return measured(kernel.name, kernel.tolerance, [&](KernelResult& result) {
    const at::Tensor reference = kernel.compute(all_as(kernel.inputs, at::kCPU, at::kDouble));
    const Tensors inputs = all_as(kernel.inputs, device, kernel.dtype);
    result.difference = relative_difference(kernel.compute(inputs), reference);
    // The second call, so that loading the kernel is not counted; reading a value back waits for the device.
    const double start = core::now_seconds();
    kernel.compute(inputs).sum().item<double>();
    result.milliseconds = (core::now_seconds() - start) * 1e3;
  });
}

}  // namespace

at::Tensor random_values(at::IntArrayRef shape, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, at::TensorOptions(at::kFloat));
}

double relative_difference(const at::Tensor& result, const at::Tensor& reference) {
  const double scale = reference.abs().max().item<double>();
  const double difference = result.to(at::kCPU, at::kDouble).sub(reference).abs().max().item<double>();
  return std::isfinite(difference) ? difference / std::max(scale, 1e-300) : std::numeric_limits<double>::infinity();
}

KernelResult measured(const std::string& kernel, double tolerance,
                      const std::function<void(KernelResult& result)>& test) {
  KernelResult result{kernel, 0.0, tolerance, 0.0, ""};
  try {
    test(result);
  } catch (const std::exception& error) {
    const std::string text = error.what();
    result.error = text.substr(0, text.find('\n'));
  }
  return result;
}

std::vector<KernelResult> test_kernels(const std::string& device) {
  std::vector<KernelResult> results;
  for (const Kernel& kernel : training_kernels()) results.push_back(test(kernel, at::Device(device)));
  return results;
}

}  // namespace neoloom::launch
