// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace neoloom::metrics {

/// A row whose predicted label is not its true one. Labels are indices.
struct Mistake {
  int64_t row = 0;
  int64_t truth = 0;
  int64_t label = 0;  // the predicted one
  double score = 0.0;
  double truth_score = 0.0;
};

inline constexpr size_t kMostMistakes = 20;

/// Adds a mistake to those with the largest scores: at most kMostMistakes, by falling score; of equal scores, the
/// earlier row comes first. The result does not depend on the order of the calls. A score that is NaN is left out.
void add_mistake(std::vector<Mistake>& worst, const Mistake& mistake);

}  // namespace neoloom::metrics
