// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/ranking.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace neoloom::metrics {
namespace {

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

bool holds_nan(const std::vector<float>& scores) {
  return std::any_of(scores.begin(), scores.end(), [](float score) { return std::isnan(score); });
}

// Moves `at` past the scores that are not below `threshold`, which are in descending order. Returns how many there are.
int64_t pass(const std::vector<float>& scores, float threshold, size_t& at) {
  const size_t begin = at;
  while (at < scores.size() && scores[at] >= threshold) ++at;
  return static_cast<int64_t>(at - begin);
}

// Adds up what the thresholds give. Counts stay integers to the end: they are exact.
class Walk {
 public:
  void pass(int64_t positives, int64_t negatives) {
    half_pairs_ += (2 * seen_positives_ + positives) * negatives;
    seen_positives_ += positives;
    seen_ += positives + negatives;
    weighted_precision_ +=
        static_cast<double>(positives) * static_cast<double>(seen_positives_) / static_cast<double>(seen_);
  }
  double roc_auc(const Ranking& counts) const {
    if (counts.positives == 0 || counts.negatives == 0) return kUndefined;
    return static_cast<double>(half_pairs_) / 2.0 / static_cast<double>(counts.positives) /
           static_cast<double>(counts.negatives);
  }
  double average_precision(const Ranking& counts) const {
    return counts.positives == 0 ? 0.0 : weighted_precision_ / static_cast<double>(counts.positives);
  }

 private:
  int64_t seen_positives_ = 0;
  int64_t seen_ = 0;
  int64_t half_pairs_ = 0;
  double weighted_precision_ = 0.0;
};

RankingAverages mean(std::span<const Ranking> labels, double Ranking::*score, bool skips_undefined) {
  double sum = 0.0, weighted_sum = 0.0, count = 0.0, positives = 0.0;
  for (const Ranking& label : labels) {
    if (skips_undefined && (label.positives == 0 || label.negatives == 0)) continue;
    const auto weight = static_cast<double>(label.positives);
    sum += label.*score;
    weighted_sum += weight == 0.0 ? 0.0 : label.*score * weight;
    count += 1.0;
    positives += weight;
  }
  return {.macro = count == 0.0 ? kUndefined : sum / count,
          .weighted = positives == 0.0 ? kUndefined : weighted_sum / positives};
}

}  // namespace

Ranking rank_scores(std::vector<float> positives, std::vector<float> negatives) {
  Ranking ranking{.positives = std::ssize(positives), .negatives = std::ssize(negatives)};
  ranking.roc_auc = ranking.average_precision = kUndefined;
  if (holds_nan(positives) || holds_nan(negatives)) return ranking;
  std::sort(positives.begin(), positives.end(), std::greater<>());
  std::sort(negatives.begin(), negatives.end(), std::greater<>());
  Walk walk;
  for (size_t i = 0, j = 0; i < positives.size() || j < negatives.size();) {
    constexpr float kLowest = -std::numeric_limits<float>::infinity();
    const float threshold =
        std::max(i < positives.size() ? positives[i] : kLowest, j < negatives.size() ? negatives[j] : kLowest);
    const int64_t more = pass(positives, threshold, i);
    walk.pass(more, pass(negatives, threshold, j));
  }
  ranking.roc_auc = walk.roc_auc(ranking);
  ranking.average_precision = walk.average_precision(ranking);
  return ranking;
}

RankingAverages roc_auc_of(std::span<const Ranking> labels) {
  return mean(labels, &Ranking::roc_auc, /*skips_undefined=*/true);
}

RankingAverages average_precision_of(std::span<const Ranking> labels) {
  return mean(labels, &Ranking::average_precision, /*skips_undefined=*/false);
}

}  // namespace neoloom::metrics
