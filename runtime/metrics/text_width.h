// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace neoloom::metrics {

/// Columns that UTF-8 text takes on a terminal: 2 for East Asian wide letters and emoji, 0 for combining marks.
size_t display_width(std::string_view text);

/// Returns `text` cut to at most `columns` columns; a text that was cut ends in "~".
std::string cut_to_width(std::string_view text, size_t columns);

/// The same for its end: a text that was cut begins with "~".
std::string cut_front_to_width(std::string_view text, size_t columns);

std::string pad_left(std::string_view text, size_t columns);
std::string pad_right(std::string_view text, size_t columns);

/// 12345678 -> "12,345,678".
std::string with_thousands(int64_t value);

/// A loss or a norm with about five digits, whatever its size.
std::string number_text(double value);
/// A rate with about three digits: 0.123, 1.23, 12.3, 12,345.
std::string rate_text(double value);
/// Bytes of memory, as "87.5 MB" or "3.21 GB".
std::string memory_text(int64_t bytes);

std::string repeated(std::string_view piece, size_t count);

/// Seconds as mm:ss, h:mm:ss or "3d 04h"; "--:--" when negative or not finite.
std::string duration_text(double seconds);

}  // namespace neoloom::metrics
