// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/classification.h"

#include <cmath>

#include "runtime/core/error.h"

namespace neoloom::metrics {
namespace {

double ratio(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

void require_positive(int64_t num_labels) {
  core::require(num_labels > 0, core::ErrorKind::kInternal, "metrics for {} labels", num_labels);
}

using Score = double (LabelCounts::*)() const;

Averages averages(const std::vector<LabelCounts>& labels, Score score) {
  LabelCounts all;
  double sum = 0.0;
  double weighted_sum = 0.0;
  for (const LabelCounts& label : labels) {
    all.true_positives += label.true_positives;
    all.false_positives += label.false_positives;
    all.false_negatives += label.false_negatives;
    sum += (label.*score)();
    weighted_sum += (label.*score)() * static_cast<double>(label.support());
  }
  return {.macro = labels.empty() ? 0.0 : sum / static_cast<double>(labels.size()),
          .micro = (all.*score)(),
          .weighted = all.support() == 0 ? 0.0 : weighted_sum / static_cast<double>(all.support())};
}

AverageScores scores_of(const std::vector<LabelCounts>& labels) {
  return {.precision = averages(labels, &LabelCounts::precision),
          .recall = averages(labels, &LabelCounts::recall),
          .f1 = averages(labels, &LabelCounts::f1)};
}

}  // namespace

double LabelCounts::precision() const { return ratio(true_positives, predicted()); }
double LabelCounts::recall() const { return ratio(true_positives, support()); }
double LabelCounts::f1() const { return ratio(2 * true_positives, predicted() + support()); }

ConfusionCounts::ConfusionCounts(int64_t num_labels) : num_labels_(num_labels) {
  require_positive(num_labels);
  cells_.resize(static_cast<size_t>(num_labels * num_labels));
}

void ConfusionCounts::add(int64_t truth, int64_t predicted) {
  core::require(truth >= 0 && truth < num_labels_ && predicted >= 0 && predicted < num_labels_,
                core::ErrorKind::kInternal, "labels {} and {} are not both in [0, {})", truth, predicted, num_labels_);
  ++cells_[static_cast<size_t>(truth * num_labels_ + predicted)];
}

double ConfusionCounts::accuracy() const {
  int64_t right = 0;
  int64_t all = 0;
  for (int64_t label = 0; label < num_labels_; ++label) right += cells_[static_cast<size_t>(label * (num_labels_ + 1))];
  for (const int64_t count : cells_) all += count;
  return ratio(right, all);
}

std::vector<LabelCounts> ConfusionCounts::labels() const {
  std::vector<LabelCounts> labels(static_cast<size_t>(num_labels_));
  const int64_t* cell = cells_.data();
  for (size_t truth = 0; truth < labels.size(); ++truth) {
    for (size_t predicted = 0; predicted < labels.size(); ++predicted, ++cell) {
      if (truth == predicted) {
        labels[truth].true_positives += *cell;
      } else {
        labels[truth].false_negatives += *cell;
        labels[predicted].false_positives += *cell;
      }
    }
  }
  return labels;
}

AverageScores ConfusionCounts::scores() const {
  std::vector<LabelCounts> seen = labels();
  std::erase_if(seen, [](const LabelCounts& label) { return label.support() + label.predicted() == 0; });
  return scores_of(seen);
}

double ConfusionCounts::matthews_correlation() const {
  int64_t right = 0, all = 0, truth_squared = 0, predicted_squared = 0, product = 0;
  for (const LabelCounts& label : labels()) {
    right += label.true_positives;
    all += label.support();
    truth_squared += label.support() * label.support();
    predicted_squared += label.predicted() * label.predicted();
    product += label.support() * label.predicted();
  }
  const auto covariance = static_cast<double>(right * all - product);
  const double variances =
      static_cast<double>(all * all - truth_squared) * static_cast<double>(all * all - predicted_squared);
  return variances == 0.0 ? 0.0 : covariance / std::sqrt(variances);
}

MultiLabelCounts::MultiLabelCounts(int64_t num_labels) : num_labels_(num_labels) {
  require_positive(num_labels);
  cells_.resize(static_cast<size_t>(3 * num_labels + 2));
}

void MultiLabelCounts::add(std::span<const uint8_t> truth, std::span<const uint8_t> predicted) {
  const auto labels = static_cast<size_t>(num_labels_);
  core::require(truth.size() == labels && predicted.size() == labels, core::ErrorKind::kInternal,
                "{} true and {} predicted marks for {} labels", truth.size(), predicted.size(), labels);
  bool exact = true;
  for (size_t i = 0; i < labels; ++i) {
    const bool is_true = truth[i] != 0;
    const bool is_predicted = predicted[i] != 0;
    cells_[i] += is_true && is_predicted ? 1 : 0;
    cells_[labels + i] += !is_true && is_predicted ? 1 : 0;
    cells_[2 * labels + i] += is_true && !is_predicted ? 1 : 0;
    exact = exact && is_true == is_predicted;
  }
  cells_[3 * labels] += exact ? 1 : 0;
  ++cells_[3 * labels + 1];
}

double MultiLabelCounts::subset_accuracy() const {
  const auto labels = static_cast<size_t>(num_labels_);
  return ratio(cells_[3 * labels], cells_[3 * labels + 1]);
}

std::vector<LabelCounts> MultiLabelCounts::labels() const {
  const auto width = static_cast<size_t>(num_labels_);
  std::vector<LabelCounts> labels(width);
  for (size_t i = 0; i < width; ++i) labels[i] = {cells_[i], cells_[width + i], cells_[2 * width + i]};
  return labels;
}

double MultiLabelCounts::hamming_loss() const {
  int64_t wrong = 0;
  for (const LabelCounts& label : labels()) wrong += label.false_positives + label.false_negatives;
  return ratio(wrong, samples() * num_labels_);
}

AverageScores MultiLabelCounts::scores() const { return scores_of(labels()); }

}  // namespace neoloom::metrics
