// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/packed_weights.h"
#include "model/scalar_type.h"

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones_like.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "model/cpu/gelu.h"
#include "model/cpu/low_rank_gemm.h"
#include "model/cpu/matmul.h"
#include "tests/unit/model/random_model.h"
#include "tests/unit/model/setups.h"

namespace neoloom::model {
namespace {

using testing::random;

class PackedGemms : public ::testing::TestWithParam<std::pair<at::ScalarType, Dtype>> {
 protected:
  void SetUp() override {
    if (!has_packed_gemm(compute())) GTEST_SKIP() << "this CPU has no microkernel for " << dtype_name(compute());
  }
  static at::ScalarType frozen() { return GetParam().first; }
  static Dtype compute() { return GetParam().second; }

  static Matrix packed(const at::Tensor& plain) {
    PackedWeights packed_weights;
    packed_weights.forward = pack_weights(plain.t(), compute());
    if (compute() != Dtype::kFloat32) packed_weights.backward = pack_weights(plain, compute());
    return {plain, packed_weights};
  }

  /// Returns what the inputs of the GEMM hold after rounding to its type.
  static at::Tensor rounded(const at::Tensor& x) { return x.to(scalar_type(compute())).to(at::kDouble); }

  // fp32 sums of up to 2500 products whose inputs are exact: a few units in the last place of the largest term.
  static constexpr double kFp32 = 2e-6;
  /// The same where a value is rounded to the type of the GEMM on the way.
  static double of_compute_dtype() { return compute() == Dtype::kFloat32 ? kFp32 : 0x1.0p-8; }

  static void expect_close(const at::Tensor& found, const at::Tensor& exact, const std::string& where,
                           double tolerance = kFp32) {
    const double distance = (found.to(at::kDouble) - exact).abs().max().item<double>();
    EXPECT_LT(distance, tolerance * (1 + exact.abs().max().item<double>())) << where;
  }
};

TEST_P(PackedGemms, EqualExactProductsForAllKindsOfRemainders) {
  Matmul matmul(compute());
  for (const int64_t rows : {1, 2, 127, 129, 300}) {
    for (const int64_t in : {1, 7, 64, 769, 1541}) {
      for (const int64_t out : {1, 63, 65, 130}) {
        const std::string where = fmt::format("rows {} in {} out {}", rows, in, out);
        const at::Tensor plain = random({out, in}, 0.1, 1).to(frozen());
        const at::Tensor exact = rounded(plain);
        const Matrix matrix = packed(plain);
        const at::Tensor x = random({rows, in}, 1.0, 2);
        const at::Tensor bias = random({out}, 1.0, 3);
        const at::Tensor dy = random({rows, out}, 1.0, 4);
        expect_close(matmul.forward(x, matrix, {}), rounded(x).mm(exact.t()), where);
        expect_close(matmul.forward(x, matrix, {.bias = bias}), rounded(x).mm(exact.t()) + bias, where + " with bias");
        expect_close(matmul.input_gradient(dy, matrix), rounded(dy).mm(exact), where + " backward");
        at::Tensor sum = x.clone();
        matmul.add_input_gradient(sum, dy, matrix);
        expect_close(sum, x.to(at::kDouble) + rounded(dy).mm(exact), where + " backward added");
      }
    }
  }
}

TEST_P(PackedGemms, WhatJoinsAProductAndWhatFollowsItEqualSeparateSteps) {
  Matmul matmul(compute());
  for (const int64_t rows : {1, 129, 300}) {
    for (const auto& [in, out] : {std::pair{64, 130}, {2500, 64}, {2500, 200}, {64, 65}, {7, 63}}) {
      const std::string where = fmt::format("rows {} in {} out {}", rows, in, out);
      const at::Tensor plain = random({out, in}, 0.1, 1).to(frozen());
      const at::Tensor exact = rounded(plain);
      const Matrix matrix = packed(plain);
      const at::Tensor x = random({rows, in}, 1.0, 2);
      const at::Tensor left = random({rows, 5}, 1.0, 3);
      const at::Tensor right = random({5, out}, 1.0, 4);
      const Epilogue terms = {random({out}, 1.0, 5), random({rows, out}, 1.0, 6), left, right};
      const at::Tensor sum =
          rounded(x).mm(exact.t()) + terms.bias + terms.residual + left.to(at::kDouble).mm(right.to(at::kDouble));
      const at::Tensor y = matmul.forward(x, matrix, terms);
      expect_close(y, sum, where);
      const at::ScalarType lowp = matmul.input_type(matrix);
      EXPECT_TRUE(at::equal(matmul.forward(x, matrix, terms, lowp), y.to(lowp))) << where;
      const at::Tensor slope = gelu_new_backward(at::ones_like(y), y);
      for (const GeluKeeps keeps : {GeluKeeps::kInput, GeluKeeps::kSlope}) {
        const Matmul::Activated activated = matmul.forward_activated(x, matrix, terms, keeps);
        EXPECT_TRUE(at::equal(activated.values, gelu_new(y).to(lowp))) << where;
        const at::Tensor& kept = keeps == GeluKeeps::kSlope ? slope : y;
        EXPECT_TRUE(at::equal(rows_of_tiles(activated.saved.values, out), kept.to(lowp))) << where;
      }
    }
  }
}

TEST_P(PackedGemms, AScaleMultipliesTheProductAloneBeforeTheOtherTermsJoin) {
  Matmul matmul(compute());
  for (const int64_t out : {64, 130}) {
    const at::Tensor plain = random({out, 70}, 0.1, 1).to(frozen());
    const at::Tensor x = random({129, 70}, 1.0, 2);
    const at::Tensor scale = random({out}, 1.0, 3), bias = random({out}, 1.0, 4), residual = random({129, out}, 1.0, 5);
    const at::Tensor left = random({129, 5}, 1.0, 6), right = random({5, out}, 1.0, 7);
    const at::Tensor product = rounded(x).mm(rounded(plain).t()).mul(scale);
    const at::Tensor low_rank = left.to(at::kDouble).mm(right.to(at::kDouble));
    for (const Matrix& matrix : {packed(plain), Matrix(plain)}) {
      const bool is_packed = matrix.packed_weights.forward.defined();
      const std::string where = fmt::format("out {}, {}", out, is_packed ? "packed" : "LibTorch's");
      const double tolerance =
          is_packed ? kFp32 : of_compute_dtype();  // LibTorch returns a product in its inputs' type
      expect_close(matmul.forward(x, matrix, {.scale = scale}), product, where, tolerance);
      expect_close(matmul.forward(x, matrix, {.bias = bias, .scale = scale}), product + bias, where, tolerance);
      expect_close(matmul.forward(x, matrix, {bias, residual, left, right, scale}),
                   product + bias + residual + low_rank, where, tolerance);
    }
    const Epilogue terms = {bias, {}, left, right, scale};
    const Matmul::Activated activated = matmul.forward_activated(x, packed(plain), terms, GeluKeeps::kInput);
    expect_close(rows_of_tiles(activated.saved.values, out).to(at::kFloat), product + bias + low_rank, "activated",
                 of_compute_dtype());
  }
}

TEST_P(PackedGemms, TheSlopeOfGeluMultipliesTheGradientOfWhatWasBeforeIt) {
  Matmul matmul(compute());
  for (const int64_t inner : {64, 130}) {
    const Matrix first = packed(random({inner, 64}, 0.1, 1).to(frozen()));
    const Matrix second = packed(random({32, inner}, 0.1, 2).to(frozen()));
    const at::ScalarType lowp = matmul.input_type(second);
    const at::Tensor x = random({200, 64}, 1.0, 3);
    const at::Tensor dy = random({200, 32}, 1.0, 4);
    const Epilogue terms = {{}, random({200, inner}, 1.0, 5), random({200, 3}, 1.0, 6), random({3, inner}, 1.0, 7)};
    const at::Tensor plain = matmul.input_gradient(dy, second, terms);
    for (const GeluKeeps keeps : {GeluKeeps::kInput, GeluKeeps::kSlope}) {
      const SavedGelu saved = matmul.forward_activated(x, first, {}, keeps).saved;
      const at::Tensor kept = rows_of_tiles(saved.values, inner).to(at::kFloat);
      const at::Tensor expected = keeps == GeluKeeps::kSlope ? plain.mul(kept) : gelu_new_backward(plain.clone(), kept);
      EXPECT_TRUE(at::equal(matmul.input_gradient(dy, second, terms, lowp, saved), expected.to(lowp)));
    }
    at::Tensor sum = x.new_zeros({200, inner});
    matmul.add_input_gradient(sum, dy, second, terms);
    expect_close(sum, plain, "added to zeros");
  }
}

TEST_P(PackedGemms, ARowHasTheSameBitsInAnyBatchAndWithAnyThreads) {
  Matmul matmul(compute());
  const int threads = at::get_num_threads();
  for (const auto& [all_rows, in] : {std::pair{300, 1541}, {600, 2500}}) {  // 600 rows x 2500 exceed a core's cache
    const Matrix matrix = packed(random({200, in}, 0.1, 1).to(frozen()));
    const Matrix transposed = packed(random({in, 200}, 0.1, 1).to(frozen()));
    const at::Tensor x = random({all_rows, in}, 1.0, 2);
    const auto forward = [&](int64_t begin, int64_t rows) {
      return matmul.forward(x.narrow(0, begin, rows), matrix, {});
    };
    const auto backward = [&](int64_t begin, int64_t rows) {
      at::Tensor sum = matmul.input_gradient(x.narrow(0, begin, rows), transposed);
      matmul.add_input_gradient(sum, x.narrow(0, begin, rows), transposed);
      return sum;
    };
    const at::Tensor y = forward(0, all_rows);
    const at::Tensor dx = backward(0, all_rows);
    for (const int64_t rows : {1, 5, 128, 131}) {
      EXPECT_TRUE(at::equal(forward(17, rows), y.narrow(0, 17, rows))) << in << ", " << rows << " rows";
      EXPECT_TRUE(at::equal(backward(17, rows), dx.narrow(0, 17, rows))) << in << ", " << rows << " rows backward";
    }
    for (const int other : {1, 2, 3}) {
      at::set_num_threads(other);
      EXPECT_TRUE(at::equal(forward(0, all_rows), y)) << in << ", " << other << " threads";
      EXPECT_TRUE(at::equal(backward(0, all_rows), dx)) << in << ", " << other << " threads backward";
    }
    at::set_num_threads(threads);
  }
}

TEST_P(PackedGemms, PackedWeightsArePaddedWithZeros) {
  const at::Tensor packed_weights = pack_weights(random({3, 65}, 1.0, 1).abs().add(1).to(frozen()), compute());
  const bool vnni = compute() != Dtype::kFloat32;
  EXPECT_EQ(packed_weights.sizes(), at::IntArrayRef(packed_shape(3, 65, compute())));
  EXPECT_EQ(packed_weights.ne(0).sum().item<int64_t>(), 3 * 65);
  EXPECT_EQ(packed_weights.numel(), 2 * 64 * (vnni ? 4 : 3));
}

INSTANTIATE_TEST_SUITE_P(Types, PackedGemms,
                         ::testing::Values(std::pair{at::kFloat, Dtype::kFloat32},
                                           std::pair{at::kHalf, Dtype::kFloat32},
                                           std::pair{at::kBFloat16, Dtype::kFloat32},
                                           std::pair{at::kBFloat16, Dtype::kBFloat16},
                                           std::pair{at::kHalf, Dtype::kBFloat16}),
                         [](const auto& info) {
                           return std::string(c10::toString(info.param.first)) + "ComputedIn" +
                                  (info.param.second == Dtype::kFloat32 ? "Float32" : "BFloat16");
                         });

TEST(ModelWithPackedWeights, ComputesWhatTheModelWithPlainMatricesComputes) {
  if (!has_packed_gemm(Dtype::kFloat32)) GTEST_SKIP() << "this CPU has no microkernel for float32";
  for (const Head head : {Head::kCausalLm, Head::kSingleLabel}) {
    const ModelSetup setup = testing::tiny_setup(head);
    const auto plain = testing::random_weights(setup.config, at::kFloat);
    const auto weights = testing::with_packed_weights(plain, Dtype::kFloat32);
    const auto expected_model = Model::create(setup, plain);
    const auto model = Model::create(setup, weights);
    const at::Tensor params = testing::random_params(*model);
    Batch batch = testing::random_batch({9, 30, 2}, 97);
    batch = head == Head::kCausalLm ? testing::with_lm_labels(batch) : testing::with_class_labels(batch, 3);
    const testing::Trial expected = testing::train_once(*expected_model, batch, params);
    const testing::Trial found = testing::train_once(*model, batch, params);
    EXPECT_NEAR(found.loss, expected.loss, 1e-5 * expected.loss);
    EXPECT_LT(testing::distance(found.grads, expected.grads), 1e-5);
    weights->blocks.front().linears.front().packed_weights.forward.zero_();
    EXPECT_NE(testing::train_once(*model, batch, params).loss, expected.loss) << "the packed weights are not used";
  }
}

TEST(LowRankGemm, EqualExactProducts) {
  for (const int64_t rows : {1, 127, 129, 300}) {
    for (const int64_t columns : {2, 64, 770}) {
      for (const int64_t rank : {1, 8, 20}) {
        const std::string where = fmt::format("rows {} columns {} rank {}", rows, columns, rank);
        const at::Tensor right = random({rank, columns}, 1.0, 1).t();
        const at::Tensor left = random({rows, rank}, 1.0, 2);
        for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
          if (type == at::kBFloat16 && !has_packed_gemm(Dtype::kBFloat16)) continue;
          const at::Tensor x = random({rows, columns}, 1.0, 3).to(type);
          const at::Tensor gemm = x.to(at::kDouble).mm(right.to(at::kDouble));
          // fp32 sums of up to 770 products, as above. With bfloat16 the right side keeps 16 bits, which costs 2^-17 of
          // each of as many terms, of random signs.
          const double split = type == at::kFloat ? 0.0 : 4 * 0x1p-17 * std::sqrt(static_cast<double>(columns));
          const double largest = gemm.abs().max().item<double>();
          EXPECT_LT((low_rank_gemm(x, right) - gemm).abs().max().item<double>(), 2e-6 * (1 + largest) + split) << where;
          const at::Tensor outer = left.to(at::kDouble).t().mm(x.to(at::kDouble));
          EXPECT_LT((low_rank_outer_product(left, x) - outer).abs().max().item<double>(),
                    2e-6 * (1 + outer.abs().max().item<double>()))
              << where;
        }
      }
    }
  }
}

TEST(LowRankGemm, HaveTheSameBitsForAnyRowsAndThreads) {
  const at::Tensor right = random({770, 8}, 1.0, 2);
  const at::Tensor left = random({300, 8}, 1.0, 3);
  const int threads = at::get_num_threads();
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    if (type == at::kBFloat16 && !has_packed_gemm(Dtype::kBFloat16)) continue;
    const at::Tensor x = random({300, 770}, 1.0, 1).to(type);
    const at::Tensor gemm = low_rank_gemm(x, right);
    const at::Tensor outer = low_rank_outer_product(left, x);
    for (const int64_t rows : {1, 5, 128, 131}) {
      if (!has_packed_gemm(Dtype::kFloat32)) break;  // at::mm uses other kernels for few rows
      EXPECT_TRUE(at::equal(low_rank_gemm(x.narrow(0, 17, rows), right), gemm.narrow(0, 17, rows))) << rows;
    }
    for (const int other : {1, 2, 3}) {
      at::set_num_threads(other);
      EXPECT_TRUE(at::equal(low_rank_gemm(x, right), gemm)) << other << " threads";
      EXPECT_TRUE(at::equal(low_rank_outer_product(left, x), outer)) << other << " threads";
    }
    at::set_num_threads(threads);
  }
}

}  // namespace
}  // namespace neoloom::model
