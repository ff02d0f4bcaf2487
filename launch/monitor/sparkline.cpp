// SPDX-License-Identifier: Apache-2.0
#include "launch/monitor/sparkline.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace neoloom::launch {
namespace {

constexpr std::array kBlocks{"\u2581", "\u2582", "\u2583", "\u2584", "\u2585", "\u2586", "\u2587", "\u2588"};
constexpr std::array kSigns{"_", ".", "-", "~", "=", "+", "*", "#"};

// Returns the mean of the finite values; NaN: there is none.
double mean_of(std::span<const double> values) {
  double sum = 0.0;
  int64_t count = 0;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    sum += value;
    ++count;
  }
  return count > 0 ? sum / static_cast<double>(count) : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

std::string sparkline(std::span<const double> values, size_t columns, bool unicode) {
  const size_t count = std::min(columns, values.size());
  std::vector<double> means;
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = i * values.size() / count;
    means.push_back(mean_of(values.subspan(begin, (i + 1) * values.size() / count - begin)));
  }
  double least = std::numeric_limits<double>::infinity();
  double greatest = -least;
  for (const double mean : means) {
    if (std::isnan(mean)) continue;
    least = std::min(least, mean);
    greatest = std::max(greatest, mean);
  }
  std::string text;
  for (const double mean : means) {
    if (std::isnan(mean)) {
      text += ' ';
      continue;
    }
    const double height = greatest > least ? (mean - least) / (greatest - least) : 0.5;
    const auto level = static_cast<size_t>(std::lround(height * static_cast<double>(kBlocks.size() - 1)));
    text += unicode ? kBlocks.at(level) : kSigns.at(level);
  }
  return text;
}

}  // namespace neoloom::launch
