// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "runtime/core/utf8.h"

namespace neoloom::core {
namespace {

constexpr size_t kLongestComparedWordBytes = 100;
constexpr size_t kNameInListBytes = 60;

bool is_control(uint32_t point) { return point < 0x20 || (point >= 0x7F && point < 0xA0); }

/// Returns true for blanks other than U+0020, for invisible characters and for those that turn the direction of text.
bool is_deceptive(uint32_t point) {
  return point == 0xA0 || point == 0xAD || point == 0x1680 || point == 0x180E || (point >= 0x2000 && point <= 0x200F) ||
         (point >= 0x2028 && point <= 0x202F) || (point >= 0x205F && point <= 0x206F) || point == 0x3000 ||
         point == 0xFEFF;
}

std::string escape(uint32_t point) {
  switch (point) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    default:
      return point < 0x80 ? fmt::format("\\x{:02x}", point) : fmt::format("\\u{:04x}", point);
  }
}

/// Appends `text` with escapes for the code points for which `hides` is true and for invalid bytes; at most `max_bytes`
/// of it. Returns whether all of it fitted.
template <typename Hides>
bool append_escaped(std::string& out, std::string_view text, size_t max_bytes, Hides hides) {
  const size_t end = out.size() + max_bytes;
  while (!text.empty()) {
    const int bytes = utf8_sequence_bytes(text);
    const auto size = static_cast<size_t>(std::abs(bytes));
    std::string piece;
    if (bytes < 0) {
      for (size_t i = 0; i < size; ++i) piece += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i]));
    } else {
      const uint32_t point = first_code_point(text).value;
      piece = hides(point) ? escape(point) : std::string(text.substr(0, size));
    }
    if (out.size() + piece.size() > end) return false;
    out += piece;
    text.remove_prefix(size);
  }
  return true;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

}  // namespace

std::string quoted(std::string_view text, size_t max_bytes) {
  std::string out(1, '"');
  const bool whole = append_escaped(out, text, max_bytes, [](uint32_t point) {
    return is_control(point) || is_deceptive(point) || point == '"' || point == '\\';
  });
  return out.append(whole ? "\"" : "\"...");
}

std::string quoted_list(const std::vector<std::string>& names, size_t max_names) {
  std::string list;
  for (size_t i = 0; i < std::min(names.size(), max_names); ++i) {
    list += (i == 0 ? "" : ", ") + core::quoted(names[i], kNameInListBytes);
  }
  return names.size() <= max_names ? list : fmt::format("{} and {} more", list, names.size() - max_names);
}

std::string printable(std::string_view message, size_t max_bytes) {
  std::string out;
  const auto hides = [](uint32_t point) { return is_control(point) && point != '\n'; };
  return append_escaped(out, message, max_bytes, hides) ? out : out.append("...");
}

std::string nearest(std::string_view word, const std::vector<std::string>& known) {
  if (word.size() > kLongestComparedWordBytes) return "";
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : known) {
    if (candidate.size() > kLongestComparedWordBytes) continue;
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string utf8_complaint(std::string_view text) {
  const size_t valid = utf8_prefix_bytes(text);
  if (valid == text.size()) return {};
  // Windows' code page has letters where Latin-1 has control characters.
  const bool windows = std::any_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x80 && byte < 0xA0;
  });
  const char* const name = windows ? "CP1252" : "LATIN1";
  return fmt::format("not UTF-8: 0x{:02X} at byte {}; likely {}: iconv -f {} -t UTF-8",
                     static_cast<unsigned char>(text[valid]), valid + 1, name, name);
}

}  // namespace neoloom::core
