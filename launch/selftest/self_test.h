// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

namespace neoloom::launch {

using Tensors = std::vector<at::Tensor>;

/// What a kernel computed, and the same by another way: fp64 on the CPU where the kernel rounds.
struct Compared {
  Tensors results;
  Tensors references;
};

/// One kernel in one type. Its inputs are made, and freed, by `run`.
struct KernelTest {
  std::string kernel;  // "packed GEMM"
  std::string dtype;   // of what it reads: "fp32", "fp16 weights"
  double limit = 0.0;  // of the largest error; 0: no difference at all
  std::function<Compared()> run;
  std::string not_used = "";  // why this machine never runs the kernel; empty: it does
};

struct KernelResult {
  std::string kernel;
  std::string dtype;
  double error = 0.0;  // max |result - reference| / max |reference|, of the worst result
  double limit = 0.0;
  std::string failure;   // the first line of what the kernel threw; empty: it ran
  std::string not_used;  // as in the test; the kernel did not run then

  bool passed() const { return not_used.empty() && failure.empty() && error <= limit; }
  bool wrong() const { return not_used.empty() && !passed(); }
};

/// Runs the tests one after the other. A kernel that throws is wrong; the next ones still run.
std::vector<KernelResult> run_tests(const std::vector<KernelTest>& tests);

/// One line for each result under a line of titles.
std::string table_of(const std::vector<KernelResult>& results);

/// LibTorch's operators that training uses on `device` ("cpu", "cuda:0"). A GPU wants its plug-in loaded and selected.
std::vector<KernelTest> libtorch_tests(const std::string& device);

/// The same normal values on every machine: [shape] fp32 on the CPU.
at::Tensor random_values(at::IntArrayRef shape, uint64_t seed);

/// Limits LibTorch to one thread. References are many small operators, and threads that meet after each of them keep
/// cores busy with waiting.
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

/// The limit for sums of `terms` terms in fp32. Each addition rounds by up to the roundoff of the sum so far, up or
/// down, so that errors add up to about sqrt(terms) of them. The worst of some 100,000 sums lies below four times that.
double fp32_sum_limit(int64_t terms);

}  // namespace neoloom::launch
