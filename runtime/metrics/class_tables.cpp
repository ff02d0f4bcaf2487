// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/class_tables.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/metrics/text_width.h"

namespace neoloom::metrics {
namespace {

constexpr size_t kWidestName = 24;

std::string name_of(const std::vector<std::string>& labels, size_t i) {
  return i < labels.size() ? labels[i] : fmt::format("{}", i);
}

// Returns the width of the first column, which holds `corner` and the names.
size_t name_width(std::string_view corner, const std::vector<std::string>& labels, size_t shown) {
  size_t width = corner.size();
  for (size_t i = 0; i < shown; ++i) {
    width = std::max(width, std::min(display_width(name_of(labels, i)), kWidestName));
  }
  return width;
}

std::string row_name(const std::vector<std::string>& labels, size_t i, size_t width) {
  return pad_right(cut_to_width(name_of(labels, i), width), width);
}

std::string left_out(size_t shown, size_t all) {
  return shown < all ? fmt::format("({} of {} labels shown)\n", shown, all) : "";
}

}  // namespace

std::string confusion_table(const ConfusionCounts& counts, const std::vector<std::string>& labels, int64_t max_labels) {
  constexpr size_t kWidestColumn = 10;
  const int64_t all = counts.num_labels();
  const auto shown = static_cast<size_t>(std::min(all, std::max<int64_t>(max_labels, 1)));
  const auto cell = [&](size_t row, size_t column) {
    return fmt::format("{}", counts.cells()[row * static_cast<size_t>(all) + column]);
  };
  constexpr std::string_view kCorner = "true \\ predicted";
  const size_t first = name_width(kCorner, labels, shown);
  std::vector<size_t> widths(shown);
  for (size_t i = 0; i < shown; ++i) {
    widths[i] = std::min(display_width(name_of(labels, i)), kWidestColumn);
    for (size_t row = 0; row < shown; ++row) widths[i] = std::max(widths[i], cell(row, i).size());
  }
  std::string table = pad_right(kCorner, first);
  for (size_t i = 0; i < shown; ++i) table += "  " + pad_left(cut_to_width(name_of(labels, i), widths[i]), widths[i]);
  table += "\n";
  for (size_t row = 0; row < shown; ++row) {
    table += row_name(labels, row, first);
    for (size_t i = 0; i < shown; ++i) table += "  " + pad_left(cell(row, i), widths[i]);
    table += "\n";
  }
  return table + left_out(shown, static_cast<size_t>(all));
}

std::string class_table(std::span<const LabelCounts> counts, const std::vector<std::string>& labels,
                        size_t max_labels) {
  const size_t shown = std::min(counts.size(), max_labels);
  constexpr std::string_view kCorner = "label";
  const size_t first = name_width(kCorner, labels, shown);
  std::string table =
      fmt::format("{}  {:>9}  {:>9}  {:>9}  {:>9}\n", pad_right(kCorner, first), "precision", "recall", "f1", "rows");
  for (size_t i = 0; i < shown; ++i) {
    table += fmt::format("{}  {:>9.4f}  {:>9.4f}  {:>9.4f}  {:>9}\n", row_name(labels, i, first), counts[i].precision(),
                         counts[i].recall(), counts[i].f1(), counts[i].support());
  }
  return table + left_out(shown, counts.size());
}

}  // namespace neoloom::metrics
