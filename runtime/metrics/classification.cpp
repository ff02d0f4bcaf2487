// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/classification.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/core/error.h"
#include "runtime/metrics/text_width.h"

namespace neoloom::metrics {
namespace {

// Returns 2 tp / (2 tp + fp + fn), and 0 where nothing is counted, as scikit-learn does by default (zero_division).
double f1(int64_t tp, int64_t fp, int64_t fn) {
  const int64_t denominator = 2 * tp + fp + fn;
  return denominator == 0 ? 0.0 : static_cast<double>(2 * tp) / static_cast<double>(denominator);
}

double ratio(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

void require_positive(int64_t num_labels) {
  core::require(num_labels > 0, core::ErrorKind::kInternal, "metrics for {} labels", num_labels);
}

}  // namespace

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

double ConfusionCounts::macro_f1() const {
  double sum = 0.0;
  int64_t seen = 0;
  for (int64_t label = 0; label < num_labels_; ++label) {
    int64_t in_truth = 0;
    int64_t in_prediction = 0;
    for (int64_t other = 0; other < num_labels_; ++other) {
      in_truth += cells_[static_cast<size_t>(label * num_labels_ + other)];
      in_prediction += cells_[static_cast<size_t>(other * num_labels_ + label)];
    }
    if (in_truth + in_prediction == 0) continue;
    const int64_t tp = cells_[static_cast<size_t>(label * (num_labels_ + 1))];
    sum += f1(tp, in_prediction - tp, in_truth - tp);
    ++seen;
  }
  return seen == 0 ? 0.0 : sum / static_cast<double>(seen);
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

double MultiLabelCounts::micro_f1() const {
  const auto labels = static_cast<size_t>(num_labels_);
  int64_t tp = 0, fp = 0, fn = 0;
  for (size_t i = 0; i < labels; ++i) {
    tp += cells_[i];
    fp += cells_[labels + i];
    fn += cells_[2 * labels + i];
  }
  return f1(tp, fp, fn);
}

double MultiLabelCounts::macro_f1() const {
  const auto labels = static_cast<size_t>(num_labels_);
  double sum = 0.0;
  for (size_t i = 0; i < labels; ++i) sum += f1(cells_[i], cells_[labels + i], cells_[2 * labels + i]);
  return sum / static_cast<double>(num_labels_);
}

std::string confusion_table(const ConfusionCounts& counts, const std::vector<std::string>& labels, int64_t max_labels) {
  constexpr size_t kWidestName = 24;
  constexpr size_t kWidestColumn = 10;
  const int64_t all = counts.num_labels();
  const auto shown = static_cast<size_t>(std::min(all, std::max<int64_t>(max_labels, 1)));
  const auto name_of = [&](size_t i) { return i < labels.size() ? labels[i] : fmt::format("{}", i); };
  const auto cell = [&](size_t row, size_t column) {
    return fmt::format("{}", counts.cells()[row * static_cast<size_t>(all) + column]);
  };
  constexpr std::string_view kCorner = "true \\ predicted";
  size_t first = kCorner.size();
  std::vector<size_t> widths(shown);
  for (size_t i = 0; i < shown; ++i) {
    first = std::max(first, std::min(display_width(name_of(i)), kWidestName));
    widths[i] = std::min(display_width(name_of(i)), kWidestColumn);
    for (size_t row = 0; row < shown; ++row) widths[i] = std::max(widths[i], cell(row, i).size());
  }
  std::string table = pad_right(kCorner, first);
  for (size_t i = 0; i < shown; ++i) table += "  " + pad_left(cut_to_width(name_of(i), widths[i]), widths[i]);
  table += "\n";
  for (size_t row = 0; row < shown; ++row) {
    table += pad_right(cut_to_width(name_of(row), first), first);
    for (size_t i = 0; i < shown; ++i) table += "  " + pad_left(cell(row, i), widths[i]);
    table += "\n";
  }
  if (static_cast<int64_t>(shown) < all) table += fmt::format("({} of {} labels shown)\n", shown, all);
  return table;
}

}  // namespace neoloom::metrics
