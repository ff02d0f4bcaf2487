// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/calibration.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace neoloom::metrics {
namespace {

/// Derivatives of the summed loss by the factor 1 / temperature. The loss is convex in it.
struct Derivatives {
  double first = 0.0;
  double second = 0.0;
};

/// Finds the minimum by Newton's method, and bisects where that leaves the range that is left.
double best_temperature(const std::function<Derivatives(double factor)>& derivatives) {
  constexpr int kMostSteps = 100;
  constexpr double kPrecision = 1e-12;
  double low = 1.0 / kMostTemperature;
  double high = 1.0 / kLeastTemperature;
  const Derivatives start = derivatives(low);
  if (start.first == 0.0 && start.second == 0.0) return 1.0;  // all logits of a row are equal
  if (start.first >= 0.0) return 1.0 / low;
  if (derivatives(high).first <= 0.0) return 1.0 / high;
  double factor = 1.0;
  for (int step = 0; step < kMostSteps; ++step) {
    const Derivatives here = derivatives(factor);
    (here.first > 0.0 ? high : low) = factor;
    double next = factor - here.first / here.second;
    if (!(next > low && next < high)) next = std::sqrt(low * high);
    const bool found = std::abs(next - factor) <= kPrecision * factor;
    factor = next;
    if (found) break;
  }
  return 1.0 / factor;
}

}  // namespace

double fit_temperature(std::span<const float> logits, std::span<const int64_t> truth) {
  if (truth.empty()) return 1.0;
  const size_t width = logits.size() / truth.size();
  std::vector<double> weights(width);
  return best_temperature([&](double factor) {
    Derivatives sum;
    for (size_t row = 0; row < truth.size(); ++row) {
      const auto values = logits.subspan(row * width, width);
      const double largest = *std::max_element(values.begin(), values.end());
      std::transform(values.begin(), values.end(), weights.begin(),
                     [&](float value) { return std::exp(factor * (value - largest)); });
      const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
      double mean = 0.0;
      for (size_t k = 0; k < width; ++k) mean += weights[k] / all * (values[k] - largest);
      for (size_t k = 0; k < width; ++k) {
        const double distance = values[k] - largest - mean;
        sum.second += weights[k] / all * distance * distance;
      }
      sum.first += mean - (values[static_cast<size_t>(truth[row])] - largest);
    }
    return sum;
  });
}

double fit_temperature(std::span<const float> logits, std::span<const uint8_t> truth) {
  return best_temperature([&](double factor) {
    Derivatives sum;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double value = logits[i];
      const double score = 1.0 / (1.0 + std::exp(-factor * value));
      sum.first += value * (score - (truth[i] != 0 ? 1.0 : 0.0));
      sum.second += value * value * score * (1.0 - score);
    }
    return sum;
  });
}

float best_threshold(std::vector<std::pair<float, bool>>& scored) {
  std::sort(scored.begin(), scored.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  const int64_t positives = std::count_if(scored.begin(), scored.end(), [](const auto& row) { return row.second; });
  float threshold = 0.5F;
  // F1 = 2 right / (accepted + positives), compared without rounding.
  int64_t best_right = 0;
  int64_t best_total = 1;
  int64_t right = 0;
  for (size_t i = 0; i < scored.size(); ++i) {
    right += scored[i].second ? 1 : 0;
    const bool last = i + 1 == scored.size();
    if (!last && scored[i + 1].first == scored[i].first) continue;
    const auto total = static_cast<int64_t>(i) + 1 + positives;
    if (right * best_total <= best_right * total) continue;
    best_right = right;
    best_total = total;
    threshold = std::midpoint(last ? 0.0F : scored[i + 1].first, scored[i].first);
  }
  return threshold;
}

}  // namespace neoloom::metrics
