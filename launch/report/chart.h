// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace neoloom::launch {

// Charts as SVG. neoloom draws them itself: a page that anybody can open, mail and archive may load nothing from the
// network and run no script, and the chart libraries are scripts. The page needs three kinds of charts only.
//
// Each chart scales with its column, has a text alternative, and its numbers in a table below it.

/// Values over x. A NaN breaks the line.
struct Series {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;
  bool dots = false;  // without a line
};

/// A vertical line at x.
struct Mark {
  double x = 0.0;
  std::string text;
};

struct Chart {
  std::string title;
  std::string x_label;
  std::vector<Series> series;
  std::vector<Mark> marks = {};
  bool integer_x = true;  // no ticks between integers
  bool from_zero = false;
  std::string unit = {};  // of y, in the title
};

/// Lines. Without a finite value: a sentence that says so.
std::string line_chart(const Chart& chart);

/// Areas on top of each other, which share x and sum to at most 1.
std::string stacked_chart(const Chart& chart);

/// Bars from edges[i] to edges[i + 1], of equal width on the page.
std::string bar_chart(const std::string& title, const std::string& x_label, const std::vector<std::string>& bins,
                      const std::vector<double>& counts);

/// Returns round numbers, multiples of 1, 2 or 5 times a power of ten, of which about `most` lie from `low` to `high`;
/// the first is at most `low`, the last at least `high`. `integers`: nothing between integers.
/// Equal or not finite bounds give ticks around them.
std::vector<double> ticks_around(double low, double high, int most, bool integers = false);

/// Returns the text of a tick: as many digits as the distance between ticks needs; 20k and 1.5M for large values.
std::string tick_text(double value, double distance);

/// Returns the indices of at most `most` of `count` rows, evenly, with the first and the last.
std::vector<size_t> evenly(size_t count, size_t most);

}  // namespace neoloom::launch
