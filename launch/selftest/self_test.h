// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

namespace neoloom::launch {

using Tensors = std::vector<at::Tensor>;

/// Results of a kernel, and references from another implementation: fp64 on the CPU if the kernel rounds.
struct Compared {
  Tensors results;
  Tensors references;
};

/// A test of one kernel in one type. `run` makes and frees its inputs.
struct KernelTest {
  std::string kernel;  // "packed GEMM"
  std::string dtype;   // type of its inputs: "fp32", "fp16 weights"
  double limit = 0.0;  // on KernelResult::error; 0: results must be equal
  std::function<Compared()> run;
  std::string not_used = "";  // why this machine never runs the kernel; empty: it may
};

struct KernelResult {
  std::string kernel;
  std::string dtype;
  double error = 0.0;  // largest max |result - reference| / max |reference| of all results
  double limit = 0.0;
  std::string failure;   // the first line of what the kernel threw; empty: it ran
  std::string not_used;  // as in the test; the kernel did not run then

  bool passed() const { return not_used.empty() && failure.empty() && error <= limit; }
  bool wrong() const { return not_used.empty() && !passed(); }
};

/// Runs the tests in order. A kernel that throws is wrong; the others still run.
std::vector<KernelResult> run_tests(const std::vector<KernelTest>& tests);

/// Returns a table with a header line and one line per result.
std::string table_of(const std::vector<KernelResult>& results);

/// Returns tests of LibTorch's operators that training uses on `device` ("cpu", "cuda:0"). For a GPU, the plug-in must
/// be loaded and the device selected.
std::vector<KernelTest> libtorch_tests(const std::string& device);

/// The same normal values on every machine: [shape] fp32 on the CPU.
at::Tensor random_values(at::IntArrayRef shape, uint64_t seed);

/// Limits LibTorch to one thread while it exists. References consist of many small operators, after each of which the
/// threads would spin at a barrier.
class OneThread {
 public:
  OneThread();
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

/// `values` in fp64 on the CPU.
at::Tensor in_fp64(const at::Tensor& values);

/// Unit roundoff: the largest relative error of one rounding.
inline constexpr double kFp32Roundoff = 0x1p-24;
inline constexpr double kBf16Roundoff = 0x1p-8;

/// The limit for sums of `terms` terms in fp32. Each addition rounds up or down by at most the roundoff of the sum so
/// far, so errors add up to about sqrt(terms) roundoffs. The worst of some 100,000 sums is below four times that.
double fp32_sum_limit(int64_t terms);

}  // namespace neoloom::launch
