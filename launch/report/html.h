// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace neoloom::launch {

/// Returns a text for HTML, XML and double-quoted attributes: names of classes, files and keys may hold anything.
/// Replaces bytes that are not UTF-8, and control characters other than tab and line break, by U+FFFD.
std::string escaped(std::string_view text);

/// The shortest text that reads back as the same number, as in metrics.jsonl; "–" for NaN.
std::string exact(double value);
/// Six significant digits at most, but all digits before the point; "–" for NaN.
std::string six_digits(double value);
/// Four significant digits, for people; "–" for NaN.
std::string rounded(double value);

/// A table that scrolls within its own box on narrow screens.
class Table {
 public:
  /// `caption` may be empty. Columns other than the first are numbers, aligned right, unless `text` says otherwise.
  Table(std::string_view caption, const std::vector<std::string>& columns, bool text = false);
  /// Cells are escaped. The first is the row's header.
  void row(const std::vector<std::string>& cells);
  /// The same with a shade of each cell but the first, from 0 to 1.
  void row(const std::vector<std::string>& cells, const std::vector<double>& shades);
  std::string html() const;
  bool empty() const { return rows_ == 0; }

 private:
  std::string html_;
  size_t rows_ = 0;
};

/// A sentence in place of what cannot be shown: what is missing, and what to do.
std::string missing(std::string_view sentence);

/// A section with a heading; `id` is its anchor.
std::string section(std::string_view id, std::string_view heading, std::string_view content);

/// A part that is closed at first.
std::string details(std::string_view summary, std::string_view content, bool open = false);

}  // namespace neoloom::launch
