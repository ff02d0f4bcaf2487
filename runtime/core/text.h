// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace neoloom::core {

/// Returns `text` for a message, in double quotes. Escapes quotes, backslashes, control characters, look-alike and
/// zero-width spaces (U+00A0, U+200B, U+FEFF, ...) and bytes that are not UTF-8. Cuts it to about `max_bytes`, with
/// "..." after the quotes.
std::string quoted(std::string_view text, size_t max_bytes = 200);

/// The first names, quoted and joined by commas; the rest as "and n more".
std::string quoted_list(const std::vector<std::string>& names, size_t max_names = 20);

/// Returns a message that is safe to print on a terminal: keeps line breaks, escapes other control characters and bytes
/// that are not UTF-8, and replaces what is beyond `max_bytes` by "...".
std::string printable(std::string_view message, size_t max_bytes);

/// Returns the nearest of `known` by Levenshtein distance; empty when none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& known);

/// Says why `text` is not UTF-8: the first invalid byte, its offset, the likely encoding and the command that converts
/// it ("not UTF-8: 0xE9 at byte 12; likely LATIN1: iconv -f LATIN1 -t UTF-8"); empty when it is.
std::string utf8_complaint(std::string_view text);

}  // namespace neoloom::core
