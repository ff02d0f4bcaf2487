// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/regression.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "runtime/core/error.h"

namespace neoloom::metrics {
namespace {

// tests/e2e/test_losses.py compares the scores with scipy and scikit-learn. These tests check rules that hold for any
// input.

TEST(Regression, TiesShareTheirMeanRank) {
  const std::vector<float> predicted = {1, 2, 2, 4}, truth = {10, 30, 20, 40};
  const RegressionScores scores = regression_scores(predicted, truth, 1);
  EXPECT_NEAR(scores.spearmanr, 4.5 / std::sqrt(4.5 * 5.0), 1e-15);  // ranks 0, 1.5, 1.5, 3 and 0, 2, 1, 3
}

TEST(Regression, AConstantColumnHasErrorsButNoCorrelation) {
  const std::vector<float> predicted = {2, 2}, truth = {1, 4};
  const RegressionScores scores = regression_scores(predicted, truth, 1);
  EXPECT_EQ(scores.mse, 2.5);
  EXPECT_EQ(scores.mae, 1.5);
  EXPECT_TRUE(std::isnan(scores.pearson));
  EXPECT_TRUE(std::isnan(scores.spearmanr));
}

TEST(Regression, RowsWithoutAValueAreLeftOut) {
  const std::vector<float> predicted = {1, 2, 3, 4, 5, 7}, truth = {1, 1, NAN, 3, 5, 5};
  const RegressionScores scores = regression_scores(predicted, truth, 2);
  EXPECT_EQ(scores.mse, (0.0 + 1.0 + 0.0 + 4.0) / 4);
  EXPECT_TRUE(std::isnan(regression_scores(std::vector<float>{1}, std::vector<float>{NAN}, 1).mse));
  EXPECT_THROW(regression_scores(predicted, truth, 4), core::Error);
}

}  // namespace
}  // namespace neoloom::metrics
