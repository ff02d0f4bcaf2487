// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/mistakes.h"

#include <algorithm>
#include <cmath>

namespace neoloom::metrics {

void add_mistake(std::vector<Mistake>& worst, const Mistake& mistake) {
  if (std::isnan(mistake.score)) return;
  const auto before = [](const Mistake& a, const Mistake& b) {
    return a.score > b.score || (a.score == b.score && a.row < b.row);
  };
  worst.insert(std::upper_bound(worst.begin(), worst.end(), mistake, before), mistake);
  if (worst.size() > kMostMistakes) worst.pop_back();
}

}  // namespace neoloom::metrics
