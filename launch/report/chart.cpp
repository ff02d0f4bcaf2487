// SPDX-License-Identifier: Apache-2.0
#include "launch/report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "launch/report/html.h"

namespace neoloom::launch {
namespace {

// Of the view box. A column of the page is about as wide, so that text keeps its size.
constexpr double kWidth = 480.0;
constexpr double kHeight = 240.0;
constexpr double kLeft = 58.0;
constexpr double kRight = 20.0;
constexpr double kTop = 10.0;
constexpr double kBottom = 38.0;
constexpr size_t kMostPoints = 400;  // of one line
constexpr size_t kMostRows = 500;    // of the table of a chart
constexpr size_t kColours = 8;       // the style has so many

/// Maps values of one axis to the view box.
struct Axis {
  double low = 0.0, high = 1.0;  // values at the ends
  double from = 0.0, to = 1.0;   // their places
  std::vector<double> ticks;
  double place(double value) const { return from + (value - low) / (high - low) * (to - from); }
  double distance() const { return ticks.size() > 1 ? ticks[1] - ticks[0] : 1.0; }
};

struct Bounds {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

Axis y_axis(double low, double high) {
  Axis axis{.from = kHeight - kBottom, .to = kTop, .ticks = ticks_around(low, high, 5)};
  axis.low = axis.ticks.front();
  axis.high = axis.ticks.back();
  return axis;
}

Axis x_axis(double low, double high, bool integers) {
  Axis axis{.low = low, .high = high, .from = kLeft, .to = kWidth - kRight, .ticks = {}};
  if (low == high) axis.low = low - 1, axis.high = high + 1;
  for (const double tick : ticks_around(axis.low, axis.high, 6, integers)) {
    if (tick >= axis.low && tick <= axis.high) axis.ticks.push_back(tick);
  }
  return axis;
}

std::string y_grid(const Axis& axis) {
  std::string svg;
  for (const double tick : axis.ticks) {
    const double y = axis.place(tick);
    svg += fmt::format("<path class=\"grid\" d=\"M{:.1f} {:.1f}H{:.1f}\"/>", kLeft, y, kWidth - kRight);
    svg += fmt::format("<text class=\"y\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", kLeft - 6, y + 4,
                       tick_text(tick, axis.distance()));
  }
  return svg;
}

std::string x_text(double x, const std::string& text) {
  return fmt::format("<text class=\"x\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", x, kHeight - kBottom + 16, escaped(text));
}

std::string axis_name(const std::string& label) {
  return fmt::format("<text class=\"x name\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", (kLeft + kWidth - kRight) / 2,
                     kHeight - 6, escaped(label));
}

std::string x_grid(const Axis& axis, const std::string& label) {
  std::string svg =
      fmt::format("<path class=\"axis\" d=\"M{:.1f} {:.1f}H{:.1f}\"/>", kLeft, kHeight - kBottom, kWidth - kRight);
  for (const double tick : axis.ticks) {
    svg += fmt::format("<path class=\"axis\" d=\"M{:.1f} {:.1f}v4\"/>", axis.place(tick), kHeight - kBottom);
    svg += x_text(axis.place(tick), tick_text(tick, axis.distance()));
  }
  return svg + axis_name(label);
}

/// Returns indices of at most kMostPoints values. Each stretch keeps its least and its greatest, so that peaks stay.
std::vector<size_t> drawn(const std::vector<double>& y) {
  if (y.size() <= kMostPoints) return evenly(y.size(), y.size());
  std::vector<size_t> kept = {0};
  constexpr size_t kStretches = kMostPoints / 2 - 1;
  for (size_t i = 0; i < kStretches; ++i) {
    const size_t begin = 1 + i * (y.size() - 2) / kStretches;
    const size_t end = 1 + (i + 1) * (y.size() - 2) / kStretches;
    size_t least = begin, greatest = begin;
    for (size_t k = begin; k < end; ++k) {
      if (y[k] < y[least] || std::isnan(y[least])) least = k;
      if (y[k] > y[greatest] || std::isnan(y[greatest])) greatest = k;
    }
    kept.push_back(std::min(least, greatest));
    if (least != greatest) kept.push_back(std::max(least, greatest));
  }
  kept.push_back(y.size() - 1);
  return kept;
}

std::string path_of(const Series& series, const Axis& x, const Axis& y, const std::vector<size_t>& indices) {
  std::string path;
  bool pen_down = false;
  for (const size_t i : indices) {
    if (!std::isfinite(series.y[i])) {
      pen_down = false;
      continue;
    }
    path += fmt::format("{}{:.1f} {:.1f}", pen_down ? "L" : "M", x.place(series.x[i]), y.place(series.y[i]));
    pen_down = true;
  }
  return path;
}

std::string class_of(size_t i) { return fmt::format("c{} d{}", i % kColours, i / kColours % 3); }

std::string dot(double x, double y, size_t number) {
  return fmt::format("<circle class=\"dot c{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"/>", number % kColours, x, y);
}

std::string draw(const Series& series, size_t number, const Axis& x, const Axis& y) {
  const auto finite = std::count_if(series.y.begin(), series.y.end(), [](double v) { return std::isfinite(v); });
  const std::vector<size_t> indices = drawn(series.y);
  if (!series.dots && finite > 1) {
    return fmt::format("<path class=\"line {}\" d=\"{}\"/>\n", class_of(number), path_of(series, x, y, indices));
  }
  std::string svg;
  for (const size_t i : indices) {
    if (std::isfinite(series.y[i])) svg += dot(x.place(series.x[i]), y.place(series.y[i]), number);
  }
  return svg + "\n";
}

std::string marks_of(const Chart& chart, const Axis& x) {
  std::string svg;
  for (const Mark& mark : chart.marks) {
    if (mark.x < x.low || mark.x > x.high) continue;
    svg += fmt::format("<path class=\"mark\" d=\"M{:.1f} {:.1f}V{:.1f}\"><title>{}</title></path>\n", x.place(mark.x),
                       kTop, kHeight - kBottom, escaped(mark.text));
  }
  return svg;
}

std::string legend(const Chart& chart, bool areas) {
  if (chart.series.size() < 2 && chart.marks.empty()) return "";
  std::string html = "<ul class=\"legend\">";
  for (size_t i = 0; i < chart.series.size(); ++i) {
    const std::string sample =
        areas                  ? fmt::format("<rect class=\"area c{}\" width=\"22\" height=\"10\"/>", i % kColours)
        : chart.series[i].dots ? dot(11, 5, i)
                               : fmt::format("<path class=\"line {}\" d=\"M0 5H22\"/>", class_of(i));
    html += fmt::format("<li><svg viewBox=\"0 0 22 10\" aria-hidden=\"true\">{}</svg>{}</li>", sample,
                        escaped(chart.series[i].name));
  }
  if (!chart.marks.empty()) {
    html +=
        "<li><svg viewBox=\"0 0 22 10\" aria-hidden=\"true\"><path class=\"mark\" d=\"M11 0V10\"/></svg>resume</li>";
  }
  return html + "</ul>\n";
}

/// Returns the numbers as a table: a row for each x, a column for each series.
std::string numbers_of(const Chart& chart) {
  std::map<double, std::vector<double>> rows;
  const size_t width = chart.series.size();
  std::vector<std::string> columns = {chart.x_label};
  for (size_t k = 0; k < width; ++k) {
    const Series& series = chart.series[k];
    columns.push_back(series.name);
    for (size_t i = 0; i < series.x.size(); ++i) {
      rows.try_emplace(series.x[i], width, std::numeric_limits<double>::quiet_NaN()).first->second[k] = series.y[i];
    }
  }
  std::vector<std::vector<std::string>> cells;
  for (const auto& [x, values] : rows) {
    cells.push_back({exact(x)});
    for (const double value : values) cells.back().push_back(exact(value));
  }
  const std::vector<size_t> shown = evenly(cells.size(), kMostRows);
  // A thinned series has fewer cells than metrics.jsonl has lines.
  Table table(shown.size() < cells.size() ? fmt::format("{} rows; metrics.jsonl has all", shown.size()) : "", columns);
  for (const size_t i : shown) table.row(cells[i]);
  return details("Numbers", table.html());
}

/// Describes a chart to those who do not see it.
std::string description(const Chart& chart) {
  std::string text = chart.title + " over " + chart.x_label + ".";
  constexpr size_t kMostDescribed = 8;
  for (size_t k = 0; k < chart.series.size() && k < kMostDescribed; ++k) {
    const Series& series = chart.series[k];
    size_t first = series.y.size(), last = 0, least = 0, greatest = 0;
    for (size_t i = 0; i < series.y.size(); ++i) {
      if (!std::isfinite(series.y[i])) continue;
      if (first == series.y.size()) first = least = greatest = i;
      last = i;
      if (series.y[i] < series.y[least]) least = i;
      if (series.y[i] > series.y[greatest]) greatest = i;
    }
    if (first == series.y.size()) continue;
    text += fmt::format(" {}: from {} at {} to {} at {}; least {} at {}, greatest {} at {}.", series.name,
                        rounded(series.y[first]), exact(series.x[first]), rounded(series.y[last]),
                        exact(series.x[last]), rounded(series.y[least]), exact(series.x[least]),
                        rounded(series.y[greatest]), exact(series.x[greatest]));
  }
  if (chart.series.size() > kMostDescribed) text += fmt::format(" {} more.", chart.series.size() - kMostDescribed);
  return text;
}

std::string figure(const std::string& title, const std::string& alternative, const std::string& svg,
                   const std::string& below) {
  return fmt::format(
      "<figure><figcaption>{}</figcaption>\n<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" "
      "aria-label=\"{}\">\n{}</svg>\n{}</figure>\n",
      escaped(title), kWidth, kHeight, escaped(alternative), svg, below);
}

std::string title_of(const Chart& chart) {
  return chart.unit.empty() ? chart.title : fmt::format("{} ({})", chart.title, chart.unit);
}

std::string nothing(const Chart& chart) {
  return fmt::format("<figure><figcaption>{}</figcaption>{}</figure>\n", escaped(title_of(chart)),
                     missing("There is no finite value to draw."));
}

Bounds bounds_of_x(const Chart& chart) {
  Bounds bounds;
  for (const Series& series : chart.series) {
    for (const double x : series.x) bounds.add(x);
  }
  return bounds;
}

}  // namespace

std::string line_chart(const Chart& chart) {
  Bounds bounds;
  for (const Series& series : chart.series) {
    for (const double y : series.y) bounds.add(y);
  }
  if (bounds.empty()) return nothing(chart);
  if (chart.from_zero) bounds.add(0.0);
  const Bounds across = bounds_of_x(chart);
  const Axis x = x_axis(across.low, across.high, chart.integer_x);
  const Axis y = y_axis(bounds.low, bounds.high);
  std::string svg = y_grid(y) + x_grid(x, chart.x_label) + marks_of(chart, x);
  for (const bool dots : {false, true}) {  // dots lie on lines
    for (size_t i = chart.series.size(); i-- > 0;) {
      if (chart.series[i].dots == dots) svg += draw(chart.series[i], i, x, y);
    }
  }
  return figure(title_of(chart), description(chart), svg, legend(chart, false) + numbers_of(chart));
}

std::string stacked_chart(const Chart& chart) {
  if (chart.series.empty() || chart.series.front().x.empty()) return nothing(chart);
  const Bounds across = bounds_of_x(chart);
  const Axis x = x_axis(across.low, across.high, chart.integer_x);
  const Axis y = y_axis(0.0, 1.0);
  std::string svg = y_grid(y) + x_grid(x, chart.x_label);
  const std::vector<double>& steps = chart.series.front().x;
  const std::vector<size_t> shown = evenly(steps.size(), kMostPoints);
  std::vector<double> below(steps.size(), 0.0);
  // One value alone is as wide as the chart.
  const auto left = [&](size_t i) { return steps.size() == 1 ? x.from : x.place(steps[i]); };
  const auto right = [&](size_t i) { return steps.size() == 1 ? x.to : x.place(steps[i]); };
  for (size_t k = 0; k < chart.series.size(); ++k) {
    std::vector<double> above = below;
    for (size_t i = 0; i < above.size(); ++i) {
      if (std::isfinite(chart.series[k].y[i])) above[i] += chart.series[k].y[i];
    }
    std::string path;
    for (const size_t i : shown)
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", left(i), y.place(above[i]));
    if (steps.size() == 1) path += fmt::format("H{:.1f}", x.to);
    for (size_t j = shown.size(); j-- > 0;)
      path += fmt::format("L{:.1f} {:.1f}", right(shown[j]), y.place(below[shown[j]]));
    if (steps.size() == 1) path += fmt::format("H{:.1f}", x.from);
    svg += fmt::format("<path class=\"area c{}\" d=\"{}Z\"/>\n", k % kColours, path);
    below = std::move(above);
  }
  return figure(title_of(chart), description(chart), svg, legend(chart, true) + numbers_of(chart));
}

std::string bar_chart(const std::string& title, const std::string& x_label, const std::vector<std::string>& bins,
                      const std::vector<double>& counts) {
  Bounds bounds;
  bounds.add(0.0);
  for (const double count : counts) bounds.add(count);
  const Axis y = y_axis(0.0, std::max(bounds.high, 1.0));
  std::string svg = y_grid(y);
  const double width = (kWidth - kLeft - kRight) / static_cast<double>(std::max<size_t>(bins.size(), 1));
  Table table("", {x_label, title});
  std::string alternative = fmt::format("{} by {}.", title, x_label);
  const size_t every = std::max<size_t>(1, (bins.size() + 5) / 6);
  for (size_t i = 0; i < bins.size(); ++i) {
    const double left = kLeft + width * static_cast<double>(i);
    svg += fmt::format("<rect class=\"bar\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>", left + 1,
                       y.place(counts[i]), std::max(width - 2, 1.0), kHeight - kBottom - y.place(counts[i]));
    if (i % every == 0) svg += x_text(left + width / 2, bins[i]);
    table.row({bins[i], exact(counts[i])});
    alternative += fmt::format(" {}: {}.", bins[i], exact(counts[i]));
  }
  svg += fmt::format("<path class=\"axis\" d=\"M{:.1f} {:.1f}H{:.1f}\"/>", kLeft, kHeight - kBottom, kWidth - kRight);
  return figure(title, alternative, svg + axis_name(x_label), details("Numbers", table.html()));
}

std::vector<double> ticks_around(double low, double high, int most, bool integers) {
  if (!std::isfinite(low) || !std::isfinite(high)) low = 0.0, high = 1.0;
  if (low > high) std::swap(low, high);
  if (high - low <= std::abs(high) * 1e-12 || low == high) {
    const double margin = low == 0.0 ? 1.0 : std::abs(low) * 0.1;
    low -= margin;
    high += margin;
  }
  const double rough = (high - low) / std::max(most, 1);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double distance = 10.0 * power;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * (1 - 1e-9)) {
      distance = factor * power;
      break;
    }
  }
  if (integers) distance = std::max(1.0, distance);
  const double first = std::floor(low / distance + 1e-9);
  const double last = std::ceil(high / distance - 1e-9);
  std::vector<double> ticks;
  for (double i = first; i <= last; ++i) ticks.push_back(i * distance);
  return ticks;
}

std::string tick_text(double value, double distance) {
  if (std::abs(value) < distance * 1e-6) return "0";
  if (distance < 1e-4) {
    const double digits = std::floor(std::log10(std::abs(value)) + 1e-9) - std::floor(std::log10(distance) + 1e-9);
    return fmt::format("{:.{}e}", value, static_cast<int>(std::clamp(digits, 0.0, 15.0)));
  }
  struct Unit {
    double factor;
    const char* letter;
  };
  for (const Unit unit : {Unit{1e12, "T"}, Unit{1e9, "G"}, Unit{1e6, "M"}, Unit{1e3, "k"}}) {
    if (std::abs(value) < unit.factor * (unit.factor == 1e3 ? 10 : 1)) continue;
    return fmt::format("{:.6g}{}", value / unit.factor, unit.letter);
  }
  const int digits = static_cast<int>(std::max(0.0, -std::floor(std::log10(distance) + 1e-9)));
  return fmt::format("{:.{}f}", value, digits);
}

std::vector<size_t> evenly(size_t count, size_t most) {
  std::vector<size_t> indices;
  if (count <= most || most < 2) {
    for (size_t i = 0; i < count; ++i) indices.push_back(i);
    return indices;
  }
  for (size_t i = 0; i < most; ++i) indices.push_back(i * (count - 1) / (most - 1));
  return indices;
}

}  // namespace neoloom::launch
