// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace neoloom::launch {

/// Where a value was written, for messages.
struct Position {
  std::shared_ptr<const std::string> source;  // file name, or the text of a --set
  size_t line = 0;                            // from 1; 0: the source is a --set
  std::string text() const;                   // "run.yaml:12", or "--set group.key=value"
};

/// One value of a configuration document, the same for YAML and JSON, with its position.
struct Node {
  enum class Kind { kNull, kBool, kInteger, kReal, kString, kList, kMap };
  struct Entry;

  Kind kind = Kind::kNull;
  std::string text;  // scalars: as written (strings without quotes)
  bool boolean = false;
  int64_t integer = 0;
  double real = 0.0;  // kReal, and kInteger too
  Position position;
  std::vector<Node> items;     // kList
  std::vector<Entry> entries;  // kMap, in the document's order, keys unique

  bool is_null() const { return kind == Kind::kNull; }
  bool is_number() const { return kind == Kind::kInteger || kind == Kind::kReal; }
};

struct Node::Entry {
  std::string key;
  Position position;
  Node value;
};

/// Returns a short text of a value, for messages ("found ...") and for comparison with accepted values. Normalises
/// numbers (1.0 and 1 are equal). A map that is not empty becomes "{...}".
std::string render(const Node& node);
/// Names the kind of a value: "a string", "a list".
std::string_view kind_name(const Node& node);

}  // namespace neoloom::launch
