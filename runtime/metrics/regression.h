// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace neoloom::metrics {

/// How well numbers are predicted: means over all values, and correlations, mean over the columns.
struct RegressionScores {
  double mse = 0.0;
  double mae = 0.0;
  double pearson = 0.0;    // NaN where a column is constant, as scipy
  double spearmanr = 0.0;  // Pearson's correlation of the ranks; ties have their mean rank
};

/// Computes in float64, in the order of the rows. Leaves rows out whose truth holds a NaN. All NaN without a row.
/// Shapes: predicted, truth [n, width].
RegressionScores regression_scores(std::span<const float> predicted, std::span<const float> truth, int64_t width);

}  // namespace neoloom::metrics
