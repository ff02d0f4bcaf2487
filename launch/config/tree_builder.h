// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "launch/config/node.h"

namespace neoloom::launch {

/// Builds a tree from the events of a YAML or JSON parser. Requires unique keys and a bounded depth, and checks them
/// before it builds a node.
class TreeBuilder {
 public:
  /// `fixed`: every node gets this position instead of a line of `source`.
  explicit TreeBuilder(std::shared_ptr<const std::string> source, const Position* fixed = nullptr)
      : source_(std::move(source)), fixed_(fixed) {}

  Position at(size_t line) const;
  /// True when the next scalar of an open map is a key.
  bool expects_key() const;
  void key(std::string text, size_t line);
  void scalar(Node node, size_t line);
  void begin(Node::Kind kind, size_t line);
  void end();
  /// Returns the finished tree. Throws: Error(kUsage) when the document is empty.
  Node take();

 private:
  struct Frame {
    Node node;
    std::string key;
    Position key_position;
    bool has_key = false;
  };
  void add(Node node);

  std::shared_ptr<const std::string> source_;
  const Position* fixed_;
  std::vector<Frame> open_;
  Node root_;
  bool has_root_ = false;
};

/// Resolves the type of a plain YAML scalar (null, true/false, integer, real) by YAML 1.2's core schema.
Node resolve_plain(std::string text);

void read_yaml(const std::string& text, TreeBuilder& builder);
void read_json(const std::string& text, TreeBuilder& builder);

}  // namespace neoloom::launch
