// SPDX-License-Identifier: Apache-2.0
#include "launch/selftest/self_test.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
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
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

constexpr double kNotFinite = std::numeric_limits<double>::infinity();

double error_of(const at::Tensor& result, const at::Tensor& reference) {
  core::require(result.sizes() == reference.sizes(), core::ErrorKind::kInternal, "a kernel returned another shape");
  if (!reference.is_floating_point()) return result.cpu().equal(reference.cpu()) ? 0.0 : kNotFinite;
  const at::Tensor exact = in_fp64(reference);
  const double difference = in_fp64(result).sub(exact).abs().max().item<double>();
  return std::isfinite(difference) ? difference / std::max(exact.abs().max().item<double>(), 1e-300) : kNotFinite;
}

KernelResult run_test(const KernelTest& test) {
  KernelResult result{test.kernel, test.dtype, 0.0, test.limit, "", test.not_used};
  if (!test.not_used.empty()) return result;
  try {
    const Compared compared = test.run();
    const OneThread differences;
    core::require(compared.results.size() == compared.references.size(), core::ErrorKind::kInternal,
                  "a kernel returned another number of results");
    for (size_t i = 0; i < compared.results.size(); ++i) {
      result.error = std::max(result.error, error_of(compared.results[i], compared.references[i]));
    }
  } catch (const std::exception& error) {
    const std::string text = error.what();
    result.failure = text.substr(0, text.find('\n'));
  }
  return result;
}

std::string verdict(const KernelResult& result) {
  if (!result.not_used.empty()) return fmt::format("not used on this CPU: {}", result.not_used);
  if (!result.failure.empty()) return fmt::format("WRONG: {}", result.failure);
  return fmt::format("{:>8.1e}  {:>8.1e}  {}", result.error, result.limit, result.passed() ? "ok" : "WRONG");
}

using Inputs = const Tensors&;
using Operator = at::Tensor (*)(Inputs inputs);

at::Tensor gemm(Inputs in) { return at::mm(in[0], in[1]); }
at::Tensor layer_norm(Inputs in) { return at::layer_norm(in[0], {in[0].size(1)}); }
at::Tensor gelu(Inputs in) { return at::gelu(in[0], "tanh"); }
at::Tensor gelu_backward(Inputs in) { return at::gelu_backward(in[0], in[1], "tanh"); }
at::Tensor softmax(Inputs in) { return at::softmax(in[0], 1); }
at::Tensor log_softmax(Inputs in) { return at::log_softmax(in[0], 1); }
at::Tensor embedding(Inputs in) { return at::embedding(in[0], in[1]); }
at::Tensor select_rows(Inputs in) { return at::index_select(in[0], 0, in[1]); }
at::Tensor causal_attention(Inputs in) {
  return at::scaled_dot_product_attention(in[0], in[1], in[2], {}, /*dropout_p=*/0.0, /*is_causal=*/true);
}
at::Tensor sum_in_fp64(Inputs in) { return in[0].sum(at::kDouble); }

}  // namespace

at::Tensor random_values(at::IntArrayRef shape, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, at::TensorOptions(at::kFloat));
}

OneThread::OneThread() : before_(at::get_num_threads()) { at::set_num_threads(1); }
OneThread::~OneThread() { at::set_num_threads(before_); }

at::Tensor in_fp64(const at::Tensor& values) { return values.to(at::kCPU, at::kDouble); }

double fp32_sum_limit(int64_t terms) { return 4 * kFp32Roundoff * std::sqrt(static_cast<double>(terms)); }

std::vector<KernelResult> run_tests(const std::vector<KernelTest>& tests) {
  std::vector<KernelResult> results(tests.size());
  std::transform(tests.begin(), tests.end(), results.begin(), run_test);
  return results;
}

std::string table_of(const std::vector<KernelResult>& results) {
  size_t kernel_width = 6, dtype_width = 5;
  for (const KernelResult& result : results) {
    kernel_width = std::max(kernel_width, result.kernel.size());
    dtype_width = std::max(dtype_width, result.dtype.size());
  }
  const auto line = [&](const std::string& kernel, const std::string& dtype, const std::string& found) {
    return fmt::format("    {:<{}}  {:<{}}  {}\n", kernel, kernel_width, dtype, dtype_width, found);
  };
  std::string table = line("kernel", "dtype", "   error     limit  verdict");
  for (const KernelResult& result : results) table += line(result.kernel, result.dtype, verdict(result));
  return table;
}

std::vector<KernelTest> libtorch_tests(const std::string& device) {
  std::vector<KernelTest> tests;
  const auto add = [&](const std::string& name, Operator compute, const Tensors& inputs, double limit,
                       at::ScalarType dtype = at::kFloat) {
    const std::string type = dtype == at::kFloat ? "fp32" : dtype == at::kHalf ? "fp16" : "bf16";
    tests.push_back({"LibTorch's " + name, type, limit, [=] {
                       Tensors exact, rounded;
                       for (const at::Tensor& input : inputs) {
                         const bool real = input.is_floating_point();
                         exact.push_back(real ? in_fp64(input) : input);
                         rounded.push_back(input.to(at::Device(device), real ? dtype : input.scalar_type()));
                       }
                       return Compared{{compute(rounded)}, {compute(exact)}};
                     }});
  };
  const at::Tensor a = random_values({192, 256}, 1), b = random_values({256, 320}, 2);
  const at::Tensor rows = at::arange(0, 192, 3, at::TensorOptions(at::kLong));
  // Limits of kernels that sum in fp32 in any order. 16-bit ones also round two inputs and a result.
  constexpr double kFp32 = 1e-5, kFp16 = 2e-3, kBf16 = 1e-2;
  add("GEMM", gemm, {a, b}, kFp32);
  add("row selection", select_rows, {a, rows}, 0.0);
  add("sum in fp64", sum_in_fp64, {a}, 1e-12);
  if (device == "cpu") return tests;  // kernels of neoloom do the rest there
  add("GEMM", gemm, {a, b}, kFp16, at::kHalf);
  add("GEMM", gemm, {a, b}, kBf16, at::kBFloat16);
  add("LayerNorm", layer_norm, {a}, kFp32);
  add("GELU", gelu, {a}, kFp32);
  add("GELU, backward", gelu_backward, {a, a}, kFp32);
  add("softmax", softmax, {a}, kFp32);
  add("log-softmax", log_softmax, {a}, kFp32);
  add("embedding", embedding, {a, rows}, 0.0);
  const Tensors heads = {random_values({2, 4, 96, 64}, 3), random_values({2, 4, 96, 64}, 4),
                         random_values({2, 4, 96, 64}, 5)};
  add("causal attention", causal_attention, heads, kFp32);
  return tests;
}

}  // namespace neoloom::launch
