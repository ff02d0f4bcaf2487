// SPDX-License-Identifier: Apache-2.0
// Runs neoloom's CUDA kernels on the CPU (support/fused_kernels_on_host.h) against their definitions in fp64.
#include "runtime/cuda/fused_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "tests/support/fused_kernels_on_host.h"

namespace neoloom::cuda {
namespace {

constexpr double kEpsilon = 1e-5;

/// Largest relative error of one rounding to T, and the name of T.
template <class T>
struct Type;
template <>
struct Type<float> {
  static constexpr ElementType kType = ElementType::kFloat32;
  static constexpr double kRoundoff = 0x1p-24;
};
template <>
struct Type<__half> {
  static constexpr ElementType kType = ElementType::kFloat16;
  static constexpr double kRoundoff = 0x1p-11;
};
template <>
struct Type<__nv_bfloat16> {
  static constexpr ElementType kType = ElementType::kBFloat16;
  static constexpr double kRoundoff = 0x1p-8;
};

/// Holds values at an address that is a multiple of 16, plus `shift` values.
template <class T>
class Values {
 public:
  Values(int64_t count, size_t shift) : storage_(static_cast<size_t>(count) + shift + 16), count_(count) {
    const auto address = reinterpret_cast<uintptr_t>(storage_.data());
    begin_ = storage_.data() + ((16 - address % 16) % 16) / sizeof(T) + shift;
  }
  /// Normal values around `mean`, rounded to T.
  Values(int64_t count, size_t shift, uint64_t seed, double mean = 0.0) : Values(count, shift) {
    std::mt19937_64 engine(seed);
    std::normal_distribution<float> normal(static_cast<float>(mean), 1.0F);
    for (int64_t i = 0; i < count; ++i) begin_[i] = kernels::from_float<T>(normal(engine));
  }
  Values(const Values&) = delete;
  Values& operator=(const Values&) = delete;

  T* data() { return begin_; }
  double operator[](int64_t i) const { return static_cast<double>(kernels::to_float(begin_[i])); }
  std::vector<double> in_fp64() const {
    std::vector<double> result;
    for (int64_t i = 0; i < count_; ++i) result.push_back((*this)[i]);
    return result;
  }

 private:
  std::vector<T> storage_;
  T* begin_;
  int64_t count_;
};

/// Compares element by element. `limit` is relative to the largest of the expected values, and at least to 1.
template <class T>
void expect_near(const Values<T>& found, const std::vector<double>& expected, double limit, const char* name) {
  double largest = 1.0;
  for (const double value : expected) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_NEAR(found[static_cast<int64_t>(i)], expected[i], limit * largest) << name << "[" << i << "]";
}

double mean_of(const double* x, int64_t count) {
  double total = 0.0;
  for (int64_t i = 0; i < count; ++i) total += x[i];
  return total / static_cast<double>(count);
}

struct Shape {
  int64_t rows, columns;
  size_t shift;  // of every tensor, in values: 0 is aligned
};

const std::vector<Shape> kShapes = {{0, 768, 0}, {1, 1, 0},   {3, 3, 0},    {2, 7, 0},    {5, 8, 0},    {3, 63, 0},
                                    {3, 64, 0},  {3, 64, 1},  {2, 65, 0},   {1, 255, 0},  {4, 256, 0},  {3, 257, 1},
                                    {2, 768, 0}, {2, 768, 3}, {2, 2048, 0}, {2, 2560, 0}, {1, 4096, 0}, {1, 4095, 0}};

template <class T>
class FusedKernelsTest : public testing::Test {
 protected:
  FusedKernels kernels_ = support::fused_kernels_on_host();
};
using Types = testing::Types<float, __half, __nv_bfloat16>;
TYPED_TEST_SUITE(FusedKernelsTest, Types);

template <class T>
void check_norm(const FusedKernels& kernels, const Shape& shape, bool with_bias) {
  const auto [rows, columns, shift] = shape;
  Values<float> residual(rows * columns, shift, 1, /*mean=*/3.0), bias(columns, shift, 3), weight(columns, shift, 4);
  Values<float> offset(columns, shift, 5), sum(rows * columns, shift), mean(rows, 0), rstd(rows, 0);
  Values<T> delta(rows * columns, shift, 2), normed(rows * columns, shift);
  const std::vector<double> before = residual.in_fp64();
  const ResidualNorm work{rows,
                          columns,
                          Type<T>::kType,
                          residual.data(),
                          delta.data(),
                          with_bias ? bias.data() : nullptr,
                          weight.data(),
                          offset.data(),
                          static_cast<float>(kEpsilon),
                          sum.data(),
                          normed.data(),
                          mean.data(),
                          rstd.data()};
  ASSERT_EQ(kernels.residual_norm(work, nullptr), 0);
  std::vector<double> sums, means, rstds, y;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < columns; ++i)
      sums.push_back(residual[row * columns + i] + (with_bias ? bias[i] : 0.0) + delta[row * columns + i]);
    const double* const x = sums.data() + row * columns;
    means.push_back(mean_of(x, columns));
    double variance = 0.0;
    for (int64_t i = 0; i < columns; ++i) variance += (x[i] - means.back()) * (x[i] - means.back());
    rstds.push_back(1.0 / std::sqrt(variance / static_cast<double>(columns) + kEpsilon));
    for (int64_t i = 0; i < columns; ++i) y.push_back((x[i] - means.back()) * rstds.back() * weight[i] + offset[i]);
  }
  // A row is added up in at most log2(4096) + 8 levels of fp32; a single column has no variance and rstd of 316.
  const double fp32 = 64 * Type<float>::kRoundoff;
  expect_near(sum, sums, fp32, "sum");
  expect_near(mean, means, fp32, "mean");
  expect_near(rstd, rstds, fp32, "rstd");
  expect_near(normed, y, Type<T>::kRoundoff + (columns == 1 ? 400 : 4) * fp32, "normed");
  EXPECT_EQ(residual.in_fp64(), before);
}

TYPED_TEST(FusedKernelsTest, ResidualBiasAndLayerNormEqualTheirDefinition) {
  for (const Shape& shape : kShapes) {
    for (const bool with_bias : {true, false}) {
      SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.columns << ", shift " << shape.shift);
      check_norm<TypeParam>(this->kernels_, shape, with_bias);
    }
  }
}

TYPED_TEST(FusedKernelsTest, TheSumMayOverwriteTheResidual) {
  constexpr int64_t kRows = 2, kColumns = 72;
  Values<float> residual(kRows * kColumns, 0, 1), apart(kRows * kColumns, 0, 1), sum(kRows * kColumns, 0);
  Values<float> weight(kColumns, 0, 4), offset(kColumns, 0, 5), mean(kRows, 0), rstd(kRows, 0);
  Values<TypeParam> delta(kRows * kColumns, 0, 2), normed(kRows * kColumns, 0), again(kRows * kColumns, 0);
  ResidualNorm work{
      kRows,         kColumns,      Type<TypeParam>::kType,       apart.data(), delta.data(),  nullptr,
      weight.data(), offset.data(), static_cast<float>(kEpsilon), sum.data(),   normed.data(), mean.data(),
      rstd.data()};
  ASSERT_EQ(this->kernels_.residual_norm(work, nullptr), 0);
  work.residual = work.sum = residual.data();
  work.normed = again.data();
  ASSERT_EQ(this->kernels_.residual_norm(work, nullptr), 0);
  EXPECT_EQ(residual.in_fp64(), sum.in_fp64());
  EXPECT_EQ(again.in_fp64(), normed.in_fp64());
}

TEST(FusedKernels, GradientOfTheNormIsAddedToTheResidualsGradient) {
  const FusedKernels kernels = support::fused_kernels_on_host();
  for (const auto& [rows, columns, shift] : kShapes) {
    SCOPED_TRACE(testing::Message() << rows << " x " << columns << ", shift " << shift);
    Values<float> d_normed(rows * columns, shift, 1), x(rows * columns, shift, 2, /*mean=*/3.0);
    Values<float> weight(columns, shift, 3), mean(rows, 0, 4, /*mean=*/3.0), rstd(rows, 0),
        d_sum(rows * columns, shift, 6);
    for (int64_t row = 0; row < rows; ++row) rstd.data()[row] = 0.5F + 0.25F * static_cast<float>(row);
    std::vector<double> expected = d_sum.in_fp64();
    for (int64_t row = 0; row < rows; ++row) {
      std::vector<double> g, normalized, projection;
      for (int64_t i = 0; i < columns; ++i) {
        g.push_back(d_normed[row * columns + i] * weight[i]);
        normalized.push_back((x[row * columns + i] - mean[row]) * rstd[row]);
        projection.push_back(g.back() * normalized.back());
      }
      const double mean_g = mean_of(g.data(), columns), mean_projection = mean_of(projection.data(), columns);
      for (int64_t i = 0; i < columns; ++i)
        expected[static_cast<size_t>(row * columns + i)] +=
            rstd[row] * (g[static_cast<size_t>(i)] - mean_g - normalized[static_cast<size_t>(i)] * mean_projection);
    }
    const ResidualNormGrad work{rows,          columns,     d_normed.data(), x.data(),
                                weight.data(), mean.data(), rstd.data(),     d_sum.data()};
    ASSERT_EQ(kernels.residual_norm_grad(work, nullptr), 0);
    expect_near(d_sum, expected, 128 * Type<float>::kRoundoff, "d_sum");
  }
}

// gelu_new in fp64, and its derivative.
double gelu(double x) { return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x))); }
double gelu_grad(double x) {
  const double t = std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x));
  return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * std::sqrt(2.0 / M_PI) * (1.0 + 3.0 * 0.044715 * x * x);
}

TYPED_TEST(FusedKernelsTest, BiasAndGeluForwardAndBackwardEqualTheirDefinition) {
  using T = TypeParam;
  for (const auto& [rows, columns, shift] : kShapes) {
    SCOPED_TRACE(testing::Message() << rows << " x " << columns << ", shift " << shift);
    Values<T> input(rows * columns, shift, 1, /*mean=*/-0.5), activated(rows * columns, shift);
    Values<T> d_activated(rows * columns, shift, 2), d_input(rows * columns, shift);
    Values<float> bias(columns, shift, 3);
    std::vector<double> sums = input.in_fp64(), y, dx;
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += bias[static_cast<int64_t>(i) % columns];
    ASSERT_EQ(
        this->kernels_.bias_gelu({rows, columns, Type<T>::kType, bias.data(), input.data(), activated.data()}, nullptr),
        0);
    expect_near(input, sums, Type<T>::kRoundoff, "input");
    ASSERT_EQ(this->kernels_.bias_gelu_grad(
                  {rows, columns, Type<T>::kType, input.data(), d_activated.data(), d_input.data()}, nullptr),
              0);
    for (int64_t i = 0; i < rows * columns; ++i) {
      y.push_back(gelu(input[i]));  // of the rounded sum, which backward reads, too
      dx.push_back(d_activated[i] * gelu_grad(input[i]));
    }
    const double limit = Type<T>::kRoundoff + 8 * Type<float>::kRoundoff;
    expect_near(activated, y, limit, "activated");
    expect_near(d_input, dx, limit, "d_input");
  }
}

TEST(FusedKernels, RowsThatAreTooLongAreRefused) {
  ResidualNorm work;
  work.rows = 1;
  work.columns = 4097;
  EXPECT_EQ(support::fused_kernels_on_host().residual_norm(work, nullptr), kernels::kNotSupported);
}

}  // namespace
}  // namespace neoloom::cuda
