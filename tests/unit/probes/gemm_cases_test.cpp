// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/probes/gemm_cases.h"

#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "tests/bench/probes/gemm_reference.h"

namespace neoloom::probes {
namespace {

TEST(Gemms, OfAStepAreThoseOfTheLayersAndTheHead) {
  const model::GptNeoConfig config = gemm_models()[0].config;  // 1.3B
  const std::vector<Gemm> expected = {{8192, 2048, 2048, false, 96}, {8192, 2048, 8192, false, 24},
                                      {8192, 8192, 2048, false, 24}, {8192, 2048, 2048, true, 24},
                                      {8192, 6144, 2048, true, 23},  // nothing below the first block trains
                                      {8192, 8192, 2048, true, 24},  {8192, 2048, 8192, true, 24},
                                      {2048, 2048, 50304, false, 4}, {2048, 50304, 2048, true, 4}};
  EXPECT_THAT(step_gemms(config, 8192), ::testing::UnorderedElementsAreArray(expected));
}

TEST(Gemms, OfEveryModelAreMeasuredAtItsRows) {
  std::set<std::pair<std::string, int64_t>> found;
  std::set<std::string> titles;
  for (const GemmItem& item : gemm_items()) {
    EXPECT_TRUE(titles.insert(item.title()).second) << item.title();
    found.emplace(item.shape["model"], item.shape["rows"]);
  }
  const std::set<std::pair<std::string, int64_t>> expected = {{"125M", 1024}, {"125M", 8192},  {"125M", 16384},
                                                              {"1.3B", 8192}, {"1.3B", 16384}, {"2.7B", 8192},
                                                              {"2.7B", 16384}};
  EXPECT_EQ(found, expected);
}

TEST(Gemms, EveryModelAndRowsHasTheSameOperations) {
  std::map<std::pair<std::string, int64_t>, std::map<Operation, int>> counts;
  for (const GemmItem& item : gemm_items()) {
    ++counts[{item.shape["model"], item.shape["rows"]}][item.operation];
  }
  // Seven shapes of layers, two of the head; two ways each. LoRA with two ranks.
  const std::map<Operation, int> expected = {
      {Operation::kGemm, 14},       {Operation::kGemmFp32, 4}, {Operation::kSumFp32, 14}, {Operation::kMlpForward, 3},
      {Operation::kMlpBackward, 2}, {Operation::kResidual, 4}, {Operation::kLoraUp, 4},   {Operation::kLoraForward, 8}};
  for (const auto& [where, found] : counts) EXPECT_EQ(found, expected) << where.first << ' ' << where.second;
}

double gelu_new(double x) { return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x))); }

class GemmReference : public ::testing::Test {
 protected:
  static at::Tensor values(at::IntArrayRef shape) { return at::randn(shape, at::kDouble); }
  static double value_at(const at::Tensor& x, int64_t i, int64_t j) { return x[i][j].item<double>(); }
  static double dot(const at::Tensor& x, int64_t i, const at::Tensor& weight, int64_t j) {
    double sum = 0.0;
    for (int64_t k = 0; k < x.size(1); ++k) sum += value_at(x, i, k) * value_at(weight, j, k);
    return sum;
  }
  void SetUp() override { at::manual_seed(3); }
};

TEST_F(GemmReference, MlpForwardIsGeluNewOfTheBiasedGemm) {
  const at::Tensor x = values({3, 5}), weight = values({4, 5}), bias = values({4});
  const auto found = mlp_forward_reference(x, weight, bias);
  for (int64_t i = 0; i < 3; ++i) {
    for (int64_t j = 0; j < 4; ++j) {
      const double pre = dot(x, i, weight, j) + bias[j].item<double>();
      EXPECT_NEAR(value_at(found[0], i, j), pre, 1e-12);
      EXPECT_NEAR(value_at(found[1], i, j), gelu_new(pre), 1e-12);
    }
  }
}

TEST_F(GemmReference, MlpBackwardIsTheGemmTimesTheSlopeOfGeluNew) {
  const at::Tensor dy = values({3, 5}), weight = values({5, 4}), pre = values({3, 4});
  const at::Tensor found = mlp_backward_reference(dy, weight, pre);
  constexpr double kStep = 1e-5;
  for (int64_t i = 0; i < 3; ++i) {
    for (int64_t j = 0; j < 4; ++j) {
      const double slope =
          (gelu_new(value_at(pre, i, j) + kStep) - gelu_new(value_at(pre, i, j) - kStep)) / (2 * kStep);
      EXPECT_NEAR(value_at(found, i, j), dot(dy, i, weight.t(), j) * slope, 1e-8);
    }
  }
}

TEST_F(GemmReference, ResidualAndLoraAreTheirSums) {
  const at::Tensor x = values({3, 5}), weight = values({4, 5}), bias = values({4}), before = values({3, 4});
  const at::Tensor a = values({2, 5}), b = values({4, 2});
  const at::Tensor residual = residual_reference(before, bias, x, weight);
  const at::Tensor lora = lora_reference(x, weight, a, b, 1.5);
  for (int64_t i = 0; i < 3; ++i) {
    for (int64_t j = 0; j < 4; ++j) {
      const double product = dot(x, i, weight, j);
      EXPECT_NEAR(value_at(residual, i, j), value_at(before, i, j) + bias[j].item<double>() + product, 1e-12);
      double up = 0.0;
      for (int64_t r = 0; r < 2; ++r) up += dot(x, i, a, r) * value_at(b, j, r);
      EXPECT_NEAR(value_at(lora, i, j), product + 1.5 * up, 1e-12);
    }
  }
}

}  // namespace
}  // namespace neoloom::probes
