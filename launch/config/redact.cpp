// SPDX-License-Identifier: Apache-2.0
#include "launch/config/redact.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace neoloom::launch {

namespace {

constexpr std::string_view kTokenStart = "hf_";
constexpr std::string_view kAuthority = "://";
constexpr size_t kShortestToken = 6;  // letters and digits after hf_, one of them a capital or a digit
constexpr size_t kShortestWord = 20;  // of small letters only
constexpr size_t kCertainToken = 16;
constexpr size_t kCertainWord = 30;

bool alphanumeric(char letter) { return std::isalnum(static_cast<unsigned char>(letter)) != 0; }

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

/// Returns the number of letters and digits of a Hugging Face token that starts at `at`; 0 when none does.
size_t token_length(std::string_view text, size_t at) {
  if (text.substr(at, kTokenStart.size()) != kTokenStart || (at > 0 && alphanumeric(text[at - 1]))) return 0;
  const std::string_view rest = text.substr(at + kTokenStart.size());
  const auto end = std::find_if_not(rest.begin(), rest.end(), alphanumeric);
  return static_cast<size_t>(end - rest.begin());
}

bool looks_like_token(std::string_view letters, size_t shortest, size_t shortest_word) {
  const bool mixed =
      std::any_of(letters.begin(), letters.end(), [](unsigned char c) { return std::isdigit(c) || std::isupper(c); });
  return letters.size() >= (mixed ? shortest : shortest_word);
}

/// Returns where "user:password" ends, before the '@', in the address whose "://" lies at `at`; npos when it has none.
size_t end_of_credentials(std::string_view text, size_t at) {
  const size_t begin = at + kAuthority.size();
  const size_t end = std::min(text.find_first_of(" \t\r\n\"'/<>", begin), text.size());
  const size_t sign = text.substr(0, end).rfind('@');
  if (sign == std::string_view::npos || sign <= begin) return std::string_view::npos;
  return text.substr(begin, sign - begin).find(':') == std::string_view::npos ? std::string_view::npos : sign;
}

}  // namespace

bool names_secret(std::string_view key) {
  std::string name = lower(key);
  std::replace(name.begin(), name.end(), '-', '_');
  for (const std::string_view special :
       {"bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"}) {
    if (name.ends_with(special)) return false;
  }
  constexpr std::array<std::string_view, 6> kEnds = {"token", "password", "passwd", "secret", "api_key", "apikey"};
  return std::any_of(kEnds.begin(), kEnds.end(), [&](std::string_view end) { return name.ends_with(end); });
}

std::string redacted(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t letters = token_length(text, at);
    if (letters > 0 && looks_like_token(text.substr(at + kTokenStart.size(), letters), kShortestToken, kShortestWord)) {
      out.append(kTokenStart).append(kHidden);
      at += kTokenStart.size() + letters;
    } else if (text.substr(at, kAuthority.size()) == kAuthority &&
               end_of_credentials(text, at) != std::string_view::npos) {
      out.append(kAuthority).append(kHidden);
      at = end_of_credentials(text, at);
    } else {
      out += text[at++];
    }
  }
  return out;
}

std::string redacted_assignment(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || !names_secret(text.substr(0, equals))) return redacted(text);
  return std::string(text.substr(0, equals + 1)).append(kHidden);
}

bool holds_secret(std::string_view text) {
  for (size_t at = 0; at < text.size(); ++at) {
    const size_t letters = token_length(text, at);
    if (letters > 0 && looks_like_token(text.substr(at + kTokenStart.size(), letters), kCertainToken, kCertainWord)) {
      return true;
    }
    if (text.substr(at, kAuthority.size()) == kAuthority && end_of_credentials(text, at) != std::string_view::npos) {
      return true;
    }
  }
  return false;
}

}  // namespace neoloom::launch
