// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace neoloom::model {

/// Finds where a growing text ends: before the first of some strings, which may begin and end inside tokens.
class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> strings) : strings_(std::move(strings)) {}

  /// Appends bytes. Returns whether the text has ended.
  bool append(std::string_view bytes);
  /// The text so far, without a stop string and what followed it.
  const std::string& text() const { return text_; }
  /// How many bytes of the text stay whatever comes next: its end may be the beginning of a stop string.
  size_t settled_bytes() const;

 private:
  std::vector<std::string> strings_;
  std::string text_;
  bool ended_ = false;
};

}  // namespace neoloom::model
