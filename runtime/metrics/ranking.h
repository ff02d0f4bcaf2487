// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace neoloom::metrics {

/// How well the scores of one label put its rows before the others.
struct Ranking {
  int64_t positives = 0;
  int64_t negatives = 0;
  /// Share of the pairs of a positive and a negative row in which the positive one has the larger score; equal scores
  /// are half a pair. As scikit-learn's roc_auc_score. NaN without positives or without negatives.
  double roc_auc = 0.0;
  /// Sum of (R_n - R_n-1) P_n over the thresholds n. As scikit-learn's average_precision_score: 0 without positives.
  double average_precision = 0.0;
};

/// Ranks the scores of a label's rows and those of all others. The order of the scores does not matter. Both values are
/// NaN when a score is not a number.
Ranking rank_scores(std::vector<float> positives, std::vector<float> negatives);

/// Means of a score over labels.
struct RankingAverages {
  double macro = 0.0;
  double weighted = 0.0;  // by positives
};

/// Over the labels that have positives and negatives; NaN when none has.
RankingAverages roc_auc_of(std::span<const Ranking> labels);
/// Over all labels.
RankingAverages average_precision_of(std::span<const Ranking> labels);

}  // namespace neoloom::metrics
