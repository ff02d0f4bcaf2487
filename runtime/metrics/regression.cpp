// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/regression.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "runtime/core/error.h"

namespace neoloom::metrics {
namespace {

using Column = std::vector<double>;

double mean(const Column& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double correlation(const Column& x, const Column& y) {
  const double mean_x = mean(x);
  const double mean_y = mean(y);
  double xy = 0.0, xx = 0.0, yy = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean_x) * (y[i] - mean_y);
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    yy += (y[i] - mean_y) * (y[i] - mean_y);
  }
  return std::clamp(xy / std::sqrt(xx) / std::sqrt(yy), -1.0, 1.0);  // NaN stays
}

/// Returns the rank of each value; equal values have the mean of their ranks.
Column ranks_of(const Column& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  Column ranks(values.size());
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (size_t i = begin; i < end; ++i) ranks[order[i]] = static_cast<double>(begin + end - 1) / 2.0;
  }
  return ranks;
}

/// Splits the rows with a truth into columns.
struct Columns {
  std::vector<Column> predicted, truth;

  Columns(std::span<const float> all_predicted, std::span<const float> all_truth, size_t width)
      : predicted(width), truth(width) {
    for (size_t row = 0; row < all_truth.size(); row += width) {
      const auto values = all_truth.subspan(row, width);
      if (std::any_of(values.begin(), values.end(), [](float value) { return std::isnan(value); })) continue;
      for (size_t k = 0; k < width; ++k) {
        predicted[k].push_back(all_predicted[row + k]);
        truth[k].push_back(values[k]);
      }
    }
  }
};

}  // namespace

RegressionScores regression_scores(std::span<const float> predicted, std::span<const float> truth, int64_t width) {
  core::require(width > 0 && predicted.size() == truth.size() && truth.size() % static_cast<size_t>(width) == 0,
                core::ErrorKind::kInternal, "{} predicted and {} true values in {} columns", predicted.size(),
                truth.size(), width);
  const Columns columns(predicted, truth, static_cast<size_t>(width));
  if (columns.truth.front().empty()) return {NAN, NAN, NAN, NAN};
  RegressionScores scores;
  for (size_t k = 0; k < columns.truth.size(); ++k) {
    const Column& x = columns.predicted[k];
    const Column& y = columns.truth[k];
    const bool finite = std::all_of(x.begin(), x.end(), [](double value) { return std::isfinite(value); });
    for (size_t i = 0; i < x.size(); ++i) {
      scores.mse += (x[i] - y[i]) * (x[i] - y[i]);
      scores.mae += std::abs(x[i] - y[i]);
    }
    scores.pearson += correlation(x, y);
    scores.spearmanr += finite ? correlation(ranks_of(x), ranks_of(y)) : NAN;  // NaN has no rank
  }
  const auto values = static_cast<double>(columns.truth.front().size()) * static_cast<double>(width);
  scores.mse /= values;
  scores.mae /= values;
  scores.pearson /= static_cast<double>(width);
  scores.spearmanr /= static_cast<double>(width);
  return scores;
}

}  // namespace neoloom::metrics
