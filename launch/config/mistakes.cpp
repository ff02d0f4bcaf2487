// SPDX-License-Identifier: Apache-2.0
#include "launch/config/mistakes.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string_view>
#include <utility>

namespace neoloom::launch {

namespace {

/// Tells the order of a mistake: the place of its file in the configuration's name, and the line. Reads them from the
/// "run.yaml:12: " with which a message begins. A message without a line comes last.
std::pair<size_t, size_t> order_of(std::string_view text, std::string_view name) {
  constexpr std::pair<size_t, size_t> kLast{SIZE_MAX, 0};
  const std::string_view place = text.substr(0, text.find(": "));
  const size_t colon = place.rfind(':');
  if (colon == std::string_view::npos) return kLast;
  size_t line = 0;
  const char* const end = place.data() + place.size();
  const auto [rest, error] = std::from_chars(place.data() + colon + 1, end, line);
  return error == std::errc() && rest == end ? std::pair(name.find(place.substr(0, colon)), line) : kLast;
}

}  // namespace

std::string Mistakes::located(const std::string& text) const {
  constexpr std::string_view kOfNames = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.";
  const std::string name = text.substr(0, text.find_first_not_of(kOfNames));
  const auto place = places_.find(name);
  return place == places_.end() ? text : place->second + text.substr(name.size());
}

void Mistakes::refuse_any(const std::string& name) const {
  constexpr size_t kShown = 30;
  if (texts_.empty()) return;
  if (texts_.size() == 1) throw core::Error(core::ErrorKind::kUsage, texts_.front());
  std::vector<std::string> texts = texts_;
  const auto before = [&](const std::string& a, const std::string& b) { return order_of(a, name) < order_of(b, name); };
  std::stable_sort(texts.begin(), texts.end(), before);
  std::string list;
  for (size_t i = 0; i < std::min(texts.size(), kShown); ++i) list += "\n  " + texts[i];
  if (texts.size() > kShown) list += fmt::format("\n  and {} more", texts.size() - kShown);
  core::fail(core::ErrorKind::kUsage, "{}: {} mistakes:{}", name, texts.size(), list);
}

}  // namespace neoloom::launch
