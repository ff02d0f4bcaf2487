// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/score_counts.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/core/error.h"

namespace neoloom::metrics {
namespace {

// Rounds a probability by less than 1.2e-10. 2^31 of them still fit into a sum.
constexpr double kProbabilityUnit = 0x1.0p32;

}  // namespace

void TopKCounts::add(std::span<const float> scores, int64_t truth) {
  core::require(truth >= 0 && truth < std::ssize(scores), core::ErrorKind::kInternal, "label {} of {} scores", truth,
                scores.size());
  const auto own = static_cast<size_t>(truth);
  int64_t larger = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    larger += scores[i] > scores[own] || (scores[i] == scores[own] && i > own) ? 1 : 0;
  }
  for (size_t i = 0; i < kSizes.size(); ++i) cells_[i] += larger < kSizes[i] ? 1 : 0;
  ++cells_.back();
}

double TopKCounts::accuracy(size_t i) const {
  return cells_.back() == 0 ? 0.0 : static_cast<double>(cells_.at(i)) / static_cast<double>(cells_.back());
}

void CalibrationBins::add(float probability, bool right) {
  if (!std::isfinite(probability)) {
    ++cells_.back();
    return;
  }
  const double scaled = std::ceil(static_cast<double>(probability) * static_cast<double>(kBins));
  const auto bin = static_cast<size_t>(std::clamp(scaled, 1.0, static_cast<double>(kBins))) - 1;
  ++cells_[bin];
  cells_[kBins + bin] += right ? 1 : 0;
  cells_[2 * kBins + bin] += std::llrint(static_cast<double>(probability) * kProbabilityUnit);
}

std::vector<CalibrationBins::Bin> CalibrationBins::bins() const {
  std::vector<Bin> bins;
  for (size_t bin = 0; bin < kBins; ++bin) {
    const auto predictions = static_cast<double>(cells_[bin]);
    if (cells_[bin] == 0) continue;
    bins.push_back({cells_[bin], static_cast<double>(cells_[2 * kBins + bin]) / kProbabilityUnit / predictions,
                    static_cast<double>(cells_[kBins + bin]) / predictions});
  }
  return bins;
}

double CalibrationBins::expected_calibration_error() const {
  if (cells_.back() > 0) return std::numeric_limits<double>::quiet_NaN();
  int64_t all = 0;
  double distance = 0.0;
  for (size_t bin = 0; bin < kBins; ++bin) {
    all += cells_[bin];
    distance += std::fabs(static_cast<double>(cells_[kBins + bin]) -
                          static_cast<double>(cells_[2 * kBins + bin]) / kProbabilityUnit);
  }
  return all == 0 ? 0.0 : distance / static_cast<double>(all);
}

}  // namespace neoloom::metrics
