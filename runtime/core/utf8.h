// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace neoloom::core {

/// Bytes of the longest prefix of `text` that is UTF-8 (no surrogates, no overlong forms, at most U+10FFFF).
size_t utf8_prefix_bytes(std::string_view text);

/// Size in bytes of the sequence at the start of `text`: positive for a code point, negative for an invalid or
/// incomplete sequence, whose size is Unicode's "maximal subpart", which one U+FFFD replaces. `text` must not be empty.
int utf8_sequence_bytes(std::string_view text);

/// Size in bytes of an incomplete code point at the end of `text`, which further bytes may complete; 0: none.
size_t utf8_incomplete_tail(std::string_view text);

/// The text with every invalid part replaced by U+FFFD, by the rule of utf8_sequence_bytes.
std::string utf8_lossy(std::string_view bytes);

/// The code point that starts valid UTF-8 `text`, and its size in bytes.
struct CodePoint {
  uint32_t value = 0;
  int size_bytes = 1;
};
CodePoint first_code_point(std::string_view text);

void append_utf8(std::string& text, uint32_t code_point);

}  // namespace neoloom::core
