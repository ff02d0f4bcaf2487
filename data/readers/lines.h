// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

namespace neoloom::data {

inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

inline std::string_view without_byte_order_mark(std::string_view text) {
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  return text;
}

/// Whether lines end in CR alone (classic Mac): only in a text without any LF.
inline bool ends_lines_in_cr(std::string_view text) { return text.find('\n') == std::string_view::npos; }

/// Iterates over lines that end in LF or CR LF, or in CR if the text has no LF.
class Lines {
 public:
  explicit Lines(std::string_view text)
      : rest_(text), end_(ends_lines_in_cr(text) ? '\r' : '\n'), size_bytes_(text.size()) {}

  bool next(std::string_view& line) {
    if (rest_.empty()) return false;
    const size_t end = std::min(rest_.find(end_), rest_.size());
    line = rest_.substr(0, end);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    ++number_;
    return true;
  }
  /// 1-based number of the last line that next() returned.
  int64_t number() const { return number_; }
  double share_read() const { return 1.0 - static_cast<double>(rest_.size()) / static_cast<double>(size_bytes_); }

 private:
  std::string_view rest_;
  char end_;
  size_t size_bytes_;
  int64_t number_ = 0;
};

}  // namespace neoloom::data
