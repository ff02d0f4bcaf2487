// SPDX-License-Identifier: Apache-2.0
// Tests the self-test of `neoloom doctor` on a CPU: right kernels pass, wrong ones are found and named.
#include "launch/selftest/cpu_self_test.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "model/cpu/gemm_microkernel.h"

namespace neoloom::launch {
namespace {

using testing::HasSubstr;

using Names = std::set<std::pair<std::string, std::string>>;  // kernel, dtype

Names wrong(const std::vector<KernelResult>& results) {
  Names names;
  for (const KernelResult& result : results) {
    if (result.wrong()) names.insert({result.kernel, result.dtype});
  }
  return names;
}

TEST(CpuKernels, RightOnesPassAndTheirRoundingShows) {
  const auto results = run_tests(cpu_kernel_tests());
  EXPECT_EQ(wrong(results), Names()) << table_of(results);
  for (const KernelResult& result : results) {
    if (!result.not_used.empty()) continue;
    // If a result were compared with itself, there would be no difference.
    EXPECT_GT(result.error, 0.0) << result.kernel << ' ' << result.dtype;
  }
}

TEST(CpuKernels, AWrongElementOfAnyResultIsFoundAndNamed) {
  for (KernelTest test : cpu_kernel_tests()) {
    if (!test.not_used.empty()) continue;
    const Compared right = test.run();
    for (size_t result = 0; result < right.results.size(); ++result) {
      test.run = [&right, result] {
        Compared wrong = right;
        at::Tensor& values = wrong.results[result];
        values = values.clone(at::MemoryFormat::Contiguous);
        values.view(-1)[-1].add_(values.abs().max().mul(0.05));
        return wrong;
      };
      const auto results = run_tests({test});
      EXPECT_TRUE(results.front().wrong()) << test.kernel << ' ' << test.dtype << ", result " << result;
      EXPECT_THAT(table_of(results), testing::ContainsRegex("    " + test.kernel + " +" + test.dtype + " .* WRONG\n"));
    }
  }
}

TEST(CpuKernels, AllKindsRunInEveryTypeThatThisCpuUses) {
  Names running;
  for (const KernelTest& test : cpu_kernel_tests()) {
    if (test.not_used.empty()) running.insert({test.kernel, test.dtype});
  }
  const bool fp32 = model::microkernel(model::Dtype::kFloat32) != model::Microkernel::kNone;
  const bool avx512 = model::microkernel(model::Dtype::kFloat32) == model::Microkernel::kOneDnn;
  const bool bf16 = model::microkernel(model::Dtype::kBFloat16) != model::Microkernel::kNone;
  const auto expect = [&](const std::string& kernel, const std::string& dtype, bool runs) {
    EXPECT_EQ(running.count({kernel, dtype}), runs ? 1U : 0U) << kernel << ' ' << dtype;
  };
  expect("GEMM microkernel, AVX2", "fp32", fp32 && !avx512);
  expect("GEMM microkernel, AVX-512", "fp32", avx512);
  expect("GEMM microkernel, AVX-512", "bf16", bf16);
  for (const char* dtype : {"fp32", "fp16 weights", "bf16 weights", "bf16"}) {
    const bool reads_bf16 = dtype == std::string("bf16");
    expect("packed GEMM", dtype, reads_bf16 ? bf16 : fp32);
    expect("packed GEMM, GELU epilogue", dtype, reads_bf16 ? bf16 : fp32);
    expect("GEMM, weights not packed", dtype, !reads_bf16 || bf16);
  }
  for (const char* layer : {"global", "local"}) {
    expect(std::string("tiled attention, ") + layer, "fp32", fp32);
    expect(std::string("tiled attention, ") + layer, "bf16", bf16);
    expect(std::string("batched attention, ") + layer, "fp32", !fp32);
    expect(std::string("decode attention, ") + layer, "fp32", true);
  }
  for (const char* kernel : {"low-rank GEMM", "GELU", "LayerNorm"}) {
    expect(kernel, "fp32", true);
    expect(kernel, "bf16", bf16);
  }
  expect("softmax", "fp32", true);
  expect("cross entropy", "fp32", true);
}

TEST(CpuKernels, LowerPrecisionShowsAsOneOnEveryCpu) {
  std::vector<KernelTest> tests;
  for (KernelTest test : cpu_kernel_tests()) {
    if (test.kernel != "GELU" && test.kernel != "LayerNorm") continue;
    test.not_used.clear();  // plain loops: every CPU can run them
    tests.push_back(test);
  }
  const auto results = run_tests(tests);
  EXPECT_EQ(wrong(results), Names()) << table_of(results);
  for (const KernelResult& result : results) {
    EXPECT_EQ(result.error > 1e-4, result.dtype == "bf16") << result.kernel << ' ' << result.dtype;
  }
}

KernelTest invented(const std::string& name, at::Tensor result, const std::string& not_used = "") {
  return {name, "fp32", 1e-6, [=] { return Compared{{result}, {at::full({3}, 2.0, at::kDouble)}}; }, not_used};
}

TEST(RunTests, NotANumberAnotherShapeAndAnErrorAreWrongAndTheNextTestStillRuns) {
  KernelTest throws = invented("throws", at::Tensor());
  throws.run = []() -> Compared { throw std::runtime_error("no such instruction\nwith more lines"); };
  const auto results = run_tests({throws, invented("NaN", at::full({3}, NAN)), invented("shape", at::full({1}, 2.0F)),
                                  invented("close", at::full({3}, 2.000001F)), invented("far", at::full({3}, 2.001F))});
  EXPECT_EQ(wrong(results), (Names{{"throws", "fp32"}, {"NaN", "fp32"}, {"shape", "fp32"}, {"far", "fp32"}}));
  EXPECT_EQ(results.front().failure, "no such instruction");
  EXPECT_THAT(table_of(results), HasSubstr("WRONG: no such instruction\n"));
}

TEST(RunTests, WhatThisCpuNeverRunsIsNeitherRightNorWrong) {
  KernelTest test = invented("GEMM", at::Tensor(), "needs AVX-512");
  bool ran = false;
  test.run = [&] { return ran = true, Compared(); };
  const auto results = run_tests({test});
  EXPECT_FALSE(ran || results.front().passed() || results.front().wrong());
  EXPECT_THAT(table_of(results), HasSubstr("GEMM    fp32   not used on this CPU: needs AVX-512\n"));
  EXPECT_THAT(table_of(results), testing::Not(HasSubstr("ok")));
}

}  // namespace
}  // namespace neoloom::launch
