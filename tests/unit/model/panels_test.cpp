// SPDX-License-Identifier: Apache-2.0
#include "model/panels.h"

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "model/products.h"
#include "tests/unit/model/random_model.h"

namespace neoloom::model {
namespace {

using testing::random;

class PanelProducts : public ::testing::TestWithParam<std::pair<at::ScalarType, Dtype>> {
 protected:
  void SetUp() override {
    if (!multiplies_panels(compute())) GTEST_SKIP() << "this CPU has no block kernel for " << dtype_name(compute());
  }
  static at::ScalarType frozen() { return GetParam().first; }
  static Dtype compute() { return GetParam().second; }

  static Matrix packed(const at::Tensor& plain) {
    Panels panels;
    panels.forward = pack_panels(plain.t(), compute());
    if (compute() != Dtype::kFloat32) panels.backward = pack_panels(plain, compute());
    return {plain, panels};
  }

  /// What the inputs of the product hold after rounding to its type.
  static at::Tensor rounded(const at::Tensor& x) { return x.to(scalar_type(compute())).to(at::kDouble); }

  static void expect_close(const at::Tensor& found, const at::Tensor& exact, const std::string& where) {
    // fp32 sums of up to 1541 products whose inputs are exact: a few units in the last place of the largest term.
    const double distance = (found.to(at::kDouble) - exact).abs().max().item<double>();
    EXPECT_LT(distance, 2e-6 * (1 + exact.abs().max().item<double>())) << where;
  }
};

TEST_P(PanelProducts, EqualExactProductsForAllKindsOfRemainders) {
  Products products(compute());
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
        expect_close(products.forward(x, matrix, {}), rounded(x).mm(exact.t()), where);
        expect_close(products.forward(x, matrix, bias), rounded(x).mm(exact.t()) + bias, where + " with bias");
        expect_close(products.input_gradient(dy, matrix), rounded(dy).mm(exact), where + " backward");
        at::Tensor sum = x.clone();
        products.add_input_gradient(sum, dy, matrix);
        expect_close(sum, x.to(at::kDouble) + rounded(dy).mm(exact), where + " backward added");
      }
    }
  }
}

TEST_P(PanelProducts, ARowHasTheSameBitsInAnyBatchAndWithAnyThreads) {
  Products products(compute());
  const Matrix matrix = packed(random({130, 1541}, 0.1, 1).to(frozen()));
  const at::Tensor x = random({300, 1541}, 1.0, 2);
  const at::Tensor all = products.forward(x, matrix, {});
  for (const int64_t rows : {1, 5, 128, 131}) {
    EXPECT_TRUE(at::equal(products.forward(x.narrow(0, 17, rows), matrix, {}), all.narrow(0, 17, rows))) << rows;
  }
  const int threads = at::get_num_threads();
  for (const int other : {1, 2, 3}) {
    at::set_num_threads(other);
    EXPECT_TRUE(at::equal(products.forward(x, matrix, {}), all)) << other << " threads";
  }
  at::set_num_threads(threads);
}

TEST_P(PanelProducts, PanelsAreFilledUpWithZeros) {
  const at::Tensor panels = pack_panels(random({3, 65}, 1.0, 1).abs().add(1).to(frozen()), compute());
  const bool pairs = compute() != Dtype::kFloat32;
  EXPECT_EQ(panels.sizes(), at::IntArrayRef(panel_shape(3, 65, compute())));
  EXPECT_EQ(panels.ne(0).sum().item<int64_t>(), 3 * 65);
  EXPECT_EQ(panels.numel(), 2 * 64 * (pairs ? 4 : 3));
}

INSTANTIATE_TEST_SUITE_P(Types, PanelProducts,
                         ::testing::Values(std::pair{at::kFloat, Dtype::kFloat32},
                                           std::pair{at::kHalf, Dtype::kFloat32},
                                           std::pair{at::kBFloat16, Dtype::kFloat32},
                                           std::pair{at::kBFloat16, Dtype::kBFloat16},
                                           std::pair{at::kHalf, Dtype::kBFloat16}),
                         [](const auto& info) {
                           return std::string(c10::toString(info.param.first)) + "ComputedIn" +
                                  (info.param.second == Dtype::kFloat32 ? "Float32" : "BFloat16");
                         });

TEST(ModelWithPanels, ComputesWhatTheModelWithPlainMatricesComputes) {
  if (!multiplies_panels(Dtype::kFloat32)) GTEST_SKIP() << "this CPU has no block kernel for float32";
  for (const Head head : {Head::kCausalLm, Head::kSingleLabel}) {
    const ModelSetup setup = testing::tiny_setup(head);
    const auto plain = testing::random_weights(setup.config, at::kFloat);
    const auto weights = std::make_shared<Weights>(*plain);
    for (const FrozenMatrix& matrix : frozen_matrices(*weights)) {
      matrix.panels->forward = pack_panels(matrix.values.t(), Dtype::kFloat32);
    }
    const auto expected_model = Model::create(setup, plain);
    const auto model = Model::create(setup, weights);
    const at::Tensor params = testing::random_params(*model);
    Batch batch = testing::random_batch({9, 30, 2}, 30, 97, 0);
    batch = head == Head::kCausalLm ? testing::with_lm_labels(batch) : testing::with_class_labels(batch, 3);
    const testing::Trial expected = testing::train_once(*expected_model, batch, params);
    const testing::Trial found = testing::train_once(*model, batch, params);
    EXPECT_NEAR(found.loss, expected.loss, 1e-5 * expected.loss);
    EXPECT_LT(testing::distance(found.grads, expected.grads), 1e-5);
    weights->blocks.front().panels.front().forward.zero_();
    EXPECT_NE(testing::train_once(*model, batch, params).loss, expected.loss) << "the panels are not used";
  }
}

}  // namespace
}  // namespace neoloom::model
