// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/json.h"

namespace neoloom::core {

std::string json_excess(std::string_view text, size_t most_levels) {
  size_t depth = 0;
  size_t values = 1;
  for (size_t at = 0; at < text.size(); ++at) {
    switch (text[at]) {
      case '"':
        // Skips the string. The parser reports one that never ends.
        for (++at; at < text.size() && text[at] != '"'; ++at) at += text[at] == '\\' ? 1 : 0;
        break;
      case '[':
      case '{':
        if (++depth > most_levels) return fmt::format("nested deeper than {} levels", most_levels);
        ++values;
        break;
      case ']':
      case '}':
        depth -= depth > 0 ? 1 : 0;
        break;
      case ',':
        ++values;
        break;
      default:
        break;
    }
    if (values > kMaxJsonValues) return fmt::format("more than {} values", kMaxJsonValues);
  }
  return {};
}

bool json_integer_within(const nlohmann::json& value, int64_t least, int64_t most) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX}) return false;
  return value.get<int64_t>() >= least && value.get<int64_t>() <= most;
}

std::string json_complaint(const nlohmann::json::exception& error) {
  constexpr size_t kLongestBytes = 160;
  std::string_view text = error.what();
  const size_t end = text.find("] ");
  if (text.starts_with("[") && end != std::string_view::npos) text.remove_prefix(end + 2);
  std::string line(text.substr(0, kLongestBytes));
  // The message quotes the input, which need not be UTF-8, and the cut may split a character.
  for (char& letter : line) {
    if (static_cast<unsigned char>(letter) < 0x20 || static_cast<unsigned char>(letter) >= 0x7F) letter = '?';
  }
  return line + (text.size() > kLongestBytes ? "..." : "");
}

}  // namespace neoloom::core
