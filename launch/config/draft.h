// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace neoloom::launch {

/// A configuration that `neoloom init` writes: keys with values, and why they have them.
class Draft {
 public:
  struct Line {
    std::string group, key;
    std::string value;  // YAML
    std::string why;    // one line; empty: nothing to say
  };

  /// Adds a key, or replaces its value and reason.
  void set(const std::string& group, const std::string& key, std::string value, std::string why = "");
  void remove(const std::string& group, const std::string& key);
  const Line* find(const std::string& group, const std::string& key) const;
  bool has_group(const std::string& group) const;
  /// In the order in which they were added.
  const std::vector<Line>& lines() const { return lines_; }
  /// The document, with each reason as a comment.
  std::string yaml() const;

 private:
  std::vector<Line> lines_;
};

}  // namespace neoloom::launch
