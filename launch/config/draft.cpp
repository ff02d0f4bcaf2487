// SPDX-License-Identifier: Apache-2.0
#include "launch/config/draft.h"

#include <fmt/format.h>

#include <algorithm>

#include "launch/config/schema.h"

namespace neoloom::launch {

void Draft::set(const std::string& group, const std::string& key, std::string value, std::string why) {
  std::replace(why.begin(), why.end(), '\n', ' ');
  const auto same = [&](const Line& line) { return line.group == group && line.key == key; };
  const auto found = std::find_if(lines_.begin(), lines_.end(), same);
  Line line{group, key, std::move(value), std::move(why)};
  found == lines_.end() ? lines_.push_back(std::move(line)) : void(*found = std::move(line));
}

void Draft::remove(const std::string& group, const std::string& key) {
  std::erase_if(lines_, [&](const Line& line) { return line.group == group && line.key == key; });
}

const Draft::Line* Draft::find(const std::string& group, const std::string& key) const {
  const auto same = [&](const Line& line) { return line.group == group && line.key == key; };
  const auto found = std::find_if(lines_.begin(), lines_.end(), same);
  return found == lines_.end() ? nullptr : &*found;
}

bool Draft::has_group(const std::string& group) const {
  return std::any_of(lines_.begin(), lines_.end(), [&](const Line& line) { return line.group == group; });
}

std::string Draft::yaml() const {
  std::string out;
  for (const std::string& group : Schema().groups) {
    if (has_group(group)) out += group + ":\n";
    for (const Line& line : lines_) {
      if (line.group != group) continue;
      constexpr size_t kShort = 100;  // a longer reason stands above its key
      const std::string pair = fmt::format("  {}: {}", line.key, line.value);
      if (line.why.empty()) {
        out += pair + "\n";
      } else if (pair.size() + line.why.size() < kShort) {
        out += fmt::format("{}  # {}\n", pair, line.why);
      } else {
        out += fmt::format("  # {}\n{}\n", line.why, pair);
      }
    }
  }
  return out;
}

}  // namespace neoloom::launch
