// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/text_width.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

namespace neoloom::metrics {
namespace {

struct Range {
  char32_t first;
  char32_t last;
};

// Lists whole Unicode blocks, which is exact enough to align tables.
constexpr std::array<Range, 8> kZeroWidth = {{{0x0300, 0x036F},
                                              {0x1AB0, 0x1AFF},
                                              {0x1DC0, 0x1DFF},
                                              {0x200B, 0x200F},
                                              {0x20D0, 0x20FF},
                                              {0xFE00, 0xFE0F},
                                              {0xFE20, 0xFE2F},
                                              {0xE0000, 0xE01EF}}};
constexpr std::array<Range, 8> kDoubleWidth = {{{0x1100, 0x115F},
                                                {0x2E80, 0xA4CF},
                                                {0xAC00, 0xD7A3},
                                                {0xF900, 0xFAFF},
                                                {0xFE30, 0xFE4F},
                                                {0xFF00, 0xFF60},
                                                {0x1F300, 0x1FAFF},
                                                {0x20000, 0x3FFFD}}};

template <size_t N>
bool inside(char32_t letter, const std::array<Range, N>& ranges) {
  for (const Range& range : ranges) {
    if (letter >= range.first && letter <= range.last) return true;
  }
  return false;
}

size_t letter_width(char32_t letter) {
  if (inside(letter, kZeroWidth)) return 0;
  return inside(letter, kDoubleWidth) ? 2 : 1;
}

// Decodes the letter at `at` and moves `at` behind it. A broken byte counts as one letter.
char32_t next_letter(std::string_view text, size_t& at) {
  const auto lead = static_cast<unsigned char>(text[at++]);
  const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
  char32_t letter = more == 0 ? lead : lead & (0x3FU >> more);
  for (int i = 0; i < more && at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U; ++i) {
    letter = (letter << 6) | (static_cast<unsigned char>(text[at++]) & 0x3FU);
  }
  return letter;
}

}  // namespace

size_t display_width(std::string_view text) {
  size_t width = 0;
  for (size_t at = 0; at < text.size();) width += letter_width(next_letter(text, at));
  return width;
}

std::string cut_to_width(std::string_view text, size_t columns) {
  if (display_width(text) <= columns) return std::string(text);
  if (columns == 0) return "";
  size_t width = 0;
  size_t end = 0;
  for (size_t at = 0; at < text.size(); end = at) {
    width += letter_width(next_letter(text, at));
    if (width > columns - 1) break;
  }
  return std::string(text.substr(0, end)) + "~";
}

std::string cut_front_to_width(std::string_view text, size_t columns) {
  size_t width = display_width(text);
  if (width <= columns) return std::string(text);
  if (columns == 0) return "";
  size_t begin = 0;
  while (width > columns - 1) width -= letter_width(next_letter(text, begin));
  return std::string("~").append(text.substr(begin));
}

std::string pad_left(std::string_view text, size_t columns) {
  const size_t width = display_width(text);
  return std::string(columns > width ? columns - width : 0, ' ') + std::string(text);
}

std::string pad_right(std::string_view text, size_t columns) {
  const size_t width = display_width(text);
  return std::string(text) + std::string(columns > width ? columns - width : 0, ' ');
}

std::string with_thousands(int64_t value) {
  const std::string digits = fmt::format("{}", value < 0 ? -value : value);
  std::string text;
  if (value < 0) text += '-';
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string number_text(double value) {
  if (!std::isfinite(value)) return fmt::format("{}", value);
  const double size = std::fabs(value);
  if (size != 0.0 && (size < 1e-3 || size >= 1e5)) return fmt::format("{:.2e}", value);
  return fmt::format("{:.{}f}", value, size >= 1000.0 ? 1 : size >= 10.0 ? 3 : 4);
}

std::string rate_text(double value) {
  if (value >= 1000.0) return with_thousands(std::llround(value));
  if (value >= 100.0) return fmt::format("{:.0f}", value);
  if (value >= 10.0) return fmt::format("{:.1f}", value);
  return fmt::format("{:.{}f}", value, value >= 1.0 || value == 0.0 ? 2 : 3);
}

std::string memory_text(int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  return value < 1e9 ? fmt::format("{:.1f} MB", value / 1e6) : fmt::format("{:.2f} GB", value / 1e9);
}

std::string repeated(std::string_view piece, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += piece;
  return text;
}

std::string duration_text(double seconds) {
  constexpr int64_t kMinute = 60;
  constexpr int64_t kHour = 60 * kMinute;
  constexpr int64_t kDay = 24 * kHour;
  constexpr double kLongest = 9999.0 * kDay;
  if (!std::isfinite(seconds) || seconds < 0.0 || seconds > kLongest) return "--:--";
  const int64_t whole = std::llround(seconds);
  if (whole >= kDay) return fmt::format("{}d {:02}h", whole / kDay, whole % kDay / kHour);
  if (whole >= kHour) return fmt::format("{}:{:02}:{:02}", whole / kHour, whole % kHour / kMinute, whole % kMinute);
  return fmt::format("{:02}:{:02}", whole / kMinute, whole % kMinute);
}

}  // namespace neoloom::metrics
