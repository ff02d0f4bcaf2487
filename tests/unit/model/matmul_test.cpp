// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "model/cpu/matmul.h"
#include "model/cpu/packed_weights.h"
#include "tests/unit/model/random_model.h"

namespace neoloom::model {
namespace {

/// Multiplies with matrices that have no packed weights, here with the identity: the result tells whether the input was
/// rounded.
class PlainMatmul : public ::testing::TestWithParam<Dtype> {
 protected:
  static bool keeps(const at::Tensor& x, const at::Tensor& y) { return at::equal(x, y); }
};

// Also runs with oneDNN limited to fewer instruction sets than the CPU has (see CMakeLists.txt): there LibTorch would
// multiply 16-bit inputs one by one, a hundred times slower than fp32.
TEST_P(PlainMatmul, Read16BitInputsOnlyWhereTheMicrokernelDoes) {
  const Dtype compute = GetParam();
  const bool fp32 = !has_packed_gemm(compute) || compute == Dtype::kFloat16;
  const at::Tensor x = testing::random({8, 32}, 1.0, 1);
  for (const at::ScalarType frozen : {at::kHalf, at::kBFloat16, at::kFloat}) {
    const Matrix identity(at::eye(32, at::TensorOptions().dtype(frozen)));
    Matmul matmul(compute);
    EXPECT_EQ(keeps(x, matmul.forward(x, identity, {})), fp32) << frozen;
    EXPECT_EQ(keeps(x, matmul.input_gradient(x, identity)), fp32) << frozen;
    at::Tensor sum = at::zeros_like(x);
    matmul.add_input_gradient(sum, x, identity);
    EXPECT_EQ(keeps(x, sum), fp32) << frozen;
  }
}

INSTANTIATE_TEST_SUITE_P(ComputeDtypes, PlainMatmul, ::testing::Values(Dtype::kFloat16, Dtype::kBFloat16),
                         [](const auto& tested) { return std::string(dtype_name(tested.param)); });

}  // namespace
}  // namespace neoloom::model
