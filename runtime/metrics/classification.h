// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace neoloom::metrics {

/// Outcomes of one label against all others. Its scores are 0 where nothing is counted, as scikit-learn's default
/// zero_division has it.
struct LabelCounts {
  int64_t true_positives = 0;
  int64_t false_positives = 0;
  int64_t false_negatives = 0;

  int64_t support() const { return true_positives + false_negatives; }
  int64_t predicted() const { return true_positives + false_positives; }
  double precision() const;
  double recall() const;
  double f1() const;
};

/// Means of a score over labels, as scikit-learn's average="macro", "micro" and "weighted".
struct Averages {
  double macro = 0.0;
  double micro = 0.0;
  double weighted = 0.0;  // by support
};

struct AverageScores {
  Averages precision, recall, f1;
};

/// Counts of a classification evaluation; integers, so sums over ranks do not depend on order.
class ConfusionCounts {
 public:
  explicit ConfusionCounts(int64_t num_labels);
  /// Single-label: one (true, predicted) pair.
  void add(int64_t truth, int64_t predicted);
  int64_t num_labels() const { return num_labels_; }
  /// [num_labels x num_labels], row = truth.
  std::span<int64_t> cells() { return cells_; }
  std::span<const int64_t> cells() const { return cells_; }
  std::vector<LabelCounts> labels() const;
  double accuracy() const;
  /// Over the labels that occur in truth or prediction, as scikit-learn has it.
  AverageScores scores() const;
  /// Matthews correlation coefficient of any number of labels, as scikit-learn's matthews_corrcoef.
  double matthews_correlation() const;

 private:
  int64_t num_labels_;
  std::vector<int64_t> cells_;
};

/// Multi-label counts at threshold 0.5: per label true positives, false positives, false negatives; and exact matches.
class MultiLabelCounts {
 public:
  explicit MultiLabelCounts(int64_t num_labels);
  void add(std::span<const uint8_t> truth, std::span<const uint8_t> predicted);
  /// [3 x num_labels + 2]: tp, fp, fn per label, then exact matches and samples; for summing over ranks.
  std::span<int64_t> cells() { return cells_; }
  std::vector<LabelCounts> labels() const;
  int64_t samples() const { return cells_.back(); }
  double subset_accuracy() const;
  /// Share of wrong marks among all marks of all samples.
  double hamming_loss() const;
  /// Over all labels.
  AverageScores scores() const;

 private:
  int64_t num_labels_;
  std::vector<int64_t> cells_;
};

}  // namespace neoloom::metrics
