// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace neoloom::metrics {

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
  double accuracy() const;
  /// Mean F1 score over the labels that occur in truth or prediction, as scikit-learn's f1_score(average="macro").
  double macro_f1() const;

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
  double subset_accuracy() const;
  double micro_f1() const;
  double macro_f1() const;

 private:
  int64_t num_labels_;
  std::vector<int64_t> cells_;
};

/// The confusion matrix as an aligned text table with label names (at most `max_labels` shown).
std::string confusion_table(const ConfusionCounts& counts, const std::vector<std::string>& labels,
                            int64_t max_labels = 20);

}  // namespace neoloom::metrics
