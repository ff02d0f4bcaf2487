// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace neoloom::metrics {

/// How often the true label is among the 2, 3 or 5 largest scores; integers, so sums over ranks do not depend on order.
class TopKCounts {
 public:
  static constexpr std::array<int64_t, 3> kSizes = {2, 3, 5};

  /// Shapes: scores [num_labels]. Of equal scores that of the larger index counts as the larger one, as in
  /// scikit-learn's top_k_accuracy_score.
  void add(std::span<const float> scores, int64_t truth);
  /// [kSizes + 1]: right samples of each size, then samples.
  std::span<int64_t> cells() { return cells_; }
  /// Accuracy at kSizes[i].
  double accuracy(size_t i) const;

 private:
  std::array<int64_t, kSizes.size() + 1> cells_{};
};

/// Predictions by their probability, in 15 bins of equal width, whose upper bounds belong to them. Sums are integers.
class CalibrationBins {
 public:
  static constexpr size_t kBins = 15;

  /// `right`: whether what was predicted with this probability is true.
  void add(float probability, bool right);
  /// [3 kBins + 1]: predictions, right ones and the sum of probabilities of each bin, then the predictions that were
  /// not finite.
  std::span<int64_t> cells() { return cells_; }
  /// Mean distance of a bin's share of right predictions from its mean probability, weighted by its predictions
  /// (Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3). NaN when a probability was not finite.
  double expected_calibration_error() const;
  struct Bin {
    int64_t predictions = 0;
    double confidence = 0.0;  // mean probability
    double right = 0.0;       // share of right predictions
  };
  /// The bins that have predictions, by rising probability: the calibration curve.
  std::vector<Bin> bins() const;

 private:
  std::array<int64_t, 3 * kBins + 1> cells_{};
};

}  // namespace neoloom::metrics
