// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/gemm_microkernel.h"
#include "model/scalar_type.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "model/cpu/gemm_microkernel_avx2.h"
#include "tests/unit/model/random_model.h"

namespace neoloom::model {
namespace {

using testing::random;

using Multiply = void (*)(GemmShape, Operand<const float>, Operand<const float>, Operand<float>, bool);

constexpr int64_t kBeside = 5;  // columns of memory beside a matrix
constexpr float kUntouched = 7.0F;

Operand<const float> operand(const at::Tensor& rows) { return {rows.const_data_ptr<float>(), rows.stride(0)}; }

at::Tensor with_border(const at::Tensor& values) {
  at::Tensor padded = at::full({values.size(0), values.size(1) + kBeside}, kUntouched);
  padded.narrow(1, 0, values.size(1)).copy_(values);
  return padded;
}

class GemmMicrokernels : public ::testing::TestWithParam<Multiply> {
 protected:
  void SetUp() override {
    const bool own = GetParam() == &avx2::multiply;
    if (own ? !avx2::runs() : microkernel(Dtype::kFloat32) == Microkernel::kNone) GTEST_SKIP() << "not on this CPU";
  }
  void TearDown() override { release_microkernel(Dtype::kFloat32); }

  static at::Tensor gemm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, bool add) {
    const at::Tensor left = with_border(a);
    const at::Tensor right = with_border(b);
    at::Tensor sum = with_border(c);
    GetParam()({c.size(0), c.size(1), a.size(1)}, operand(left), operand(right),
               {sum.mutable_data_ptr<float>(), sum.stride(0)}, add);
    EXPECT_TRUE(sum.narrow(1, c.size(1), kBeside).eq(kUntouched).all().item<bool>()) << "wrote beside the result";
    return sum.narrow(1, 0, c.size(1)).contiguous();
  }
};

TEST_P(GemmMicrokernels, MultiplyAllKindsOfRemainders) {
  for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 64}) {
    for (const int64_t n : {1, 7, 8, 9, 15, 16, 17, 24, 33, 64}) {
      for (const int64_t k : {1, 5, 300}) {
        const std::string where = fmt::format("{} x {} over {}", m, n, k);
        const at::Tensor a = random({m, k}, 1.0, 1);
        const at::Tensor b = random({k, n}, 1.0, 2);
        const at::Tensor c = random({m, n}, 1.0, 3);
        const at::Tensor exact = a.to(at::kDouble).mm(b.to(at::kDouble));
        // A sum of k products of about 1: k roundings of at most 2^-24 of it.
        const double tolerance = 1e-7 * static_cast<double>(k) * (1.0 + exact.abs().max().item<double>());
        const auto furthest = [](const at::Tensor& x, const at::Tensor& y) {
          return x.to(at::kDouble).sub(y).abs().max().item<double>();
        };
        EXPECT_LE(furthest(gemm(a, b, c, /*add=*/false), exact), tolerance) << where;
        EXPECT_LE(furthest(gemm(a, b, c, /*add=*/true), exact.add(c)), tolerance) << where;
      }
    }
  }
}

TEST_P(GemmMicrokernels, ARowsBitsDependOnItAlone) {
  const at::Tensor a = random({37, 100}, 1.0, 1);
  const at::Tensor b = random({100, 64}, 1.0, 2);
  const at::Tensor c = random({37, 64}, 1.0, 3);
  const at::Tensor all = gemm(a, b, c, /*add=*/true);
  for (const int64_t rows : {1, 2, 5, 6, 7, 36}) {
    const at::Tensor some = gemm(a.narrow(0, 1, rows), b, c.narrow(0, 1, rows), /*add=*/true);
    EXPECT_TRUE(at::equal(some, all.narrow(0, 1, rows))) << rows << " rows";
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, GemmMicrokernels,
                         ::testing::Values(static_cast<Multiply>(&multiply_tile), &avx2::multiply),
                         [](const auto& tested) { return tested.param == &avx2::multiply ? "avx2" : "chosen"; });

// CMakeLists.txt runs this test under several limits.
TEST(Microkernel, IsTheBestThatCpuAndLimitAllow) {
  const std::string limit = onednn_limit();
  const bool avx2 = limit != "SSE41" && limit != "AVX";
  const bool avx512 = avx2 && !limit.starts_with("AVX2");
#if defined(__x86_64__)
  const bool cpu_has_avx512 = __builtin_cpu_supports("avx512f") != 0;
  const bool cpu_has_bf16 = __builtin_cpu_supports("avx512bf16") != 0;
#else
  const bool cpu_has_avx512 = false;
  const bool cpu_has_bf16 = false;
#endif
  const Microkernel own = avx2 && avx2::runs() ? Microkernel::kAvx2 : Microkernel::kNone;
  EXPECT_EQ(microkernel(Dtype::kFloat32), avx512 && cpu_has_avx512 ? Microkernel::kOneDnn : own);
  const bool bf16 = cpu_has_bf16 && avx512 && limit != "AVX512_CORE" && limit != "AVX512_CORE_VNNI";
  EXPECT_EQ(microkernel(Dtype::kBFloat16), bf16 ? Microkernel::kOneDnn : Microkernel::kNone);
  EXPECT_EQ(microkernel(Dtype::kFloat16), Microkernel::kNone);
}

TEST(Avx2Microkernel, CopiesTilesAsFp32) {
  if (!avx2::runs()) GTEST_SKIP() << "not on this CPU";
  constexpr int64_t kStep = avx2::kMicrokernelN;
  for (const Dtype dtype : {Dtype::kFloat32, Dtype::kFloat16, Dtype::kBFloat16}) {
    for (const int64_t columns : {1, 8, 15, 16, 17, 63, 64}) {
      for (const int64_t n : {kStep, 4 * kStep}) {
        const at::Tensor values = random({9, columns}, 1.0, 1).to(scalar_type(dtype));
        const int64_t pieces = (columns + n - 1) / n;
        at::Tensor copy = at::zeros({pieces, 9, n});
        copy.select(1, 0).fill_(kUntouched);
        avx2::copy_tile({values.const_data_ptr(), dtype, columns, 9, columns}, n, copy.mutable_data_ptr<float>());
        const int64_t written = (columns + kStep - 1) / kStep * kStep;
        at::Tensor filled = at::zeros({9, pieces * n});
        filled.narrow(1, 0, columns).copy_(values);
        filled[0].narrow(0, written, pieces * n - written).fill_(kUntouched);
        EXPECT_TRUE(at::equal(copy, filled.view({9, pieces, n}).transpose(0, 1)))
            << dtype_name(dtype) << ", " << columns << " columns, " << n << " contiguous";
      }
    }
  }
}

}  // namespace
}  // namespace neoloom::model
