// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace neoloom::core {

/// Text from outside as a message shows it: in double quotes, with escapes for quotes, backslashes, control characters,
/// blanks that look like others or like nothing (U+00A0, U+200B, U+FEFF, ...) and bytes that are not UTF-8; cut to
/// about `max_bytes`, with "..." behind the quotes.
std::string quoted(std::string_view text, size_t max_bytes = 200);

/// The first names, quoted and joined by commas; the rest as "and n more".
std::string quoted_list(const std::vector<std::string>& names, size_t max_names = 20);

/// A whole message as a terminal may show it: lines stay, other control characters and bytes that are not UTF-8 are
/// escaped, and "..." stands for what is beyond `max_bytes`.
std::string printable(std::string_view message, size_t max_bytes);

/// The nearest of `known` by Levenshtein distance; empty when nothing is near.
std::string nearest(std::string_view word, const std::vector<std::string>& known);

/// Why `text` is not UTF-8: the first wrong byte, where it is, the likely encoding and the command that converts it
/// ("not UTF-8: 0xE9 at byte 12; likely LATIN1: iconv -f LATIN1 -t UTF-8"); empty when it is.
std::string utf8_complaint(std::string_view text);

}  // namespace neoloom::core
