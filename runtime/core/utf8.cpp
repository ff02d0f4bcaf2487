// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/utf8.h"

#include <algorithm>
#include <cstring>

namespace neoloom::core {

int utf8_sequence_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return -1;
  const int wanted = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and values above U+10FFFF.
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (int i = 1; i < wanted; ++i) {
    if (static_cast<size_t>(i) >= text.size()) return -i;
    const unsigned char next = byte(i);
    if (next < (i == 1 ? low : 0x80) || next > (i == 1 ? high : 0xBF)) return -i;
  }
  return wanted;
}

size_t utf8_prefix_bytes(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t word;
    if (at + sizeof word <= text.size()) {
      std::memcpy(&word, text.data() + at, sizeof word);
      if ((word & 0x8080808080808080ULL) == 0) {
        at += sizeof word;
        continue;
      }
    }
    const int bytes = utf8_sequence_bytes(text.substr(at));
    if (bytes < 0) return at;
    at += static_cast<size_t>(bytes);
  }
  return at;
}

size_t utf8_incomplete_tail(std::string_view text) {
  constexpr size_t kLongestIncomplete = 3;
  for (size_t size = std::min(kLongestIncomplete, text.size()); size > 0; --size) {
    const std::string_view tail = text.substr(text.size() - size);
    const auto lead = static_cast<unsigned char>(tail.front());
    if (lead >= 0xC2 && lead <= 0xF4 && utf8_sequence_bytes(tail) == -static_cast<int>(size)) return size;
  }
  return 0;
}

std::string utf8_lossy(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    const size_t valid = utf8_prefix_bytes(bytes);
    text.append(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) break;
    append_utf8(text, 0xFFFD);
    bytes.remove_prefix(static_cast<size_t>(-utf8_sequence_bytes(bytes)));
  }
  return text;
}

CodePoint first_code_point(std::string_view text) {
  const int size_bytes = utf8_sequence_bytes(text);
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[i])); };
  switch (size_bytes) {
    case 2:
      return {(byte(0) & 0x1F) << 6 | (byte(1) & 0x3F), 2};
    case 3:
      return {(byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
    case 4:
      return {(byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4};
    default:
      return {byte(0), 1};
  }
}

void append_utf8(std::string& text, uint32_t code_point) {
  const auto put = [&](uint32_t value) { text.push_back(static_cast<char>(value)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

}  // namespace neoloom::core
