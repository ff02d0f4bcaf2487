// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace neoloom::metrics {

/// How the logits of a classifier become scores and labels.
struct Calibration {
  double temperature = 1.0;       // scores are those of logits / temperature
  std::vector<float> thresholds;  // multi-label [C]: a label applies where its score is above; single-label: empty
};

/// The range of temperatures that are fitted.
inline constexpr double kLeastTemperature = 0.01;
inline constexpr double kMostTemperature = 100.0;

/// Returns the temperature in that range of the least mean cross entropy (Guo et al. 2017, "On Calibration of Modern
/// Neural Networks"). Shapes: logits [n, C], finite; truth [n], indices of classes.
double fit_temperature(std::span<const float> logits, std::span<const int64_t> truth);
/// The same of the least mean binary cross entropy over all rows and labels. Shapes: logits, truth [n, C], 0 or 1.
double fit_temperature(std::span<const float> logits, std::span<const uint8_t> truth);

/// Returns the threshold above which a label applies, for the largest F1 score: half way between the least score that
/// it accepts and the next one below (or 0). Among equal F1 scores it is the largest. 0.5 if the label never holds.
/// `scored`: the score of each row, and whether the label holds. Sorts it.
float best_threshold(std::vector<std::pair<float, bool>>& scored);

}  // namespace neoloom::metrics
