// SPDX-License-Identifier: Apache-2.0
#include "launch/config/document.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "launch/config/tree_builder.h"
#include "runtime/core/error.h"

namespace neoloom::launch {

using core::ErrorKind;

std::string Position::text() const { return line == 0 ? *source : fmt::format("{}:{}", *source, line); }

std::string render(const Node& node) {
  switch (node.kind) {
    case Node::Kind::kNull:
      return "null";
    case Node::Kind::kBool:
      return node.boolean ? "true" : "false";
    case Node::Kind::kInteger:
      return fmt::format("{}", node.integer);
    case Node::Kind::kReal:
      return fmt::format("{}", node.real);
    case Node::Kind::kString:
      return node.text.size() <= 200 ? node.text : node.text.substr(0, 197) + "...";
    case Node::Kind::kList: {
      std::vector<std::string> parts;
      std::transform(node.items.begin(), node.items.end(), std::back_inserter(parts), render);
      const std::string text = fmt::format("[{}]", fmt::join(parts, ", "));
      return text.size() <= 200 ? text : "[...]";
    }
    case Node::Kind::kMap:
      return node.entries.empty() ? "{}" : "{...}";
  }
  return "";
}

std::string_view kind_name(const Node& node) {
  switch (node.kind) {
    case Node::Kind::kNull:
      return "nothing";
    case Node::Kind::kBool:
      return "a boolean";
    case Node::Kind::kInteger:
      return "an integer";
    case Node::Kind::kReal:
      return "a number";
    case Node::Kind::kString:
      return "a string";
    case Node::Kind::kList:
      return "a list";
    case Node::Kind::kMap:
      return "a map";
  }
  return "";
}

Position TreeBuilder::at(size_t line) const { return fixed_ ? *fixed_ : Position{source_, line}; }

bool TreeBuilder::expects_key() const {
  return !open_.empty() && open_.back().node.kind == Node::Kind::kMap && !open_.back().has_key;
}

void TreeBuilder::key(std::string text, size_t line) {
  Frame& frame = open_.back();
  core::require(frame.node.entries.size() < kMostKeys, ErrorKind::kUsage,
                "{}: a map of more than {} keys (is this the right file?)", at(line).text(), kMostKeys);
  const auto same = [&](const Node::Entry& entry) { return entry.key == text; };
  const auto earlier = std::find_if(frame.node.entries.begin(), frame.node.entries.end(), same);
  if (earlier != frame.node.entries.end()) {
    core::fail(ErrorKind::kUsage, "{}: key \"{}\" is given twice (first at {}); remove one of them", at(line).text(),
               text, earlier->position.text());
  }
  frame.key = std::move(text);
  frame.key_position = at(line);
  frame.has_key = true;
}

void TreeBuilder::scalar(Node node, size_t line) {
  node.position = at(line);
  core::require(node.text.find('\0') == std::string::npos, ErrorKind::kUsage, "{}: a NUL character in a string",
                node.position.text());
  add(std::move(node));
}

void TreeBuilder::begin(Node::Kind kind, size_t line) {
  core::require(open_.size() < kMaxDocumentDepth, ErrorKind::kUsage, "{}: nested deeper than {} levels",
                at(line).text(), kMaxDocumentDepth);
  if (expects_key()) core::fail(ErrorKind::kUsage, "{}: a list or map cannot be a key", at(line).text());
  Frame frame;
  frame.node.kind = kind;
  frame.node.position = at(line);
  open_.push_back(std::move(frame));
}

void TreeBuilder::end() {
  Node node = std::move(open_.back().node);
  open_.pop_back();
  add(std::move(node));
}

void TreeBuilder::add(Node node) {
  if (open_.empty()) {
    root_ = std::move(node);
    has_root_ = true;
    return;
  }
  Frame& frame = open_.back();
  if (frame.node.kind == Node::Kind::kList) {
    frame.node.items.push_back(std::move(node));
  } else {
    frame.node.entries.push_back({std::move(frame.key), frame.key_position, std::move(node)});
    frame.has_key = false;
  }
}

Node TreeBuilder::take() {
  if (!has_root_) root_.position = at(1);
  return std::move(root_);
}

namespace {

/// Returns the offset of the first byte that is not UTF-8, or npos (Unicode 15, table 3-7).
size_t first_bad_utf8(const std::string& text) {
  const auto continuation = [&](size_t at, uint8_t low, uint8_t high) {
    return at < text.size() && static_cast<uint8_t>(text[at]) >= low && static_cast<uint8_t>(text[at]) <= high;
  };
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i]);
    size_t more = 0;
    uint8_t low = 0x80, high = 0xBF;
    if (lead < 0x80) {
      more = 0;
    } else if (lead >= 0xC2 && lead <= 0xDF) {
      more = 1;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
      more = 2;
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      more = 3;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    } else {
      return i;
    }
    for (size_t k = 1; k <= more; ++k) {
      if (!continuation(i + k, k == 1 ? low : 0x80, k == 1 ? high : 0xBF)) return i;
    }
    i += more + 1;
  }
  return std::string::npos;
}

bool looks_like_json(const std::string& text) {
  const size_t start = text.starts_with("\xEF\xBB\xBF") ? 3 : 0;
  const size_t first = text.find_first_not_of(" \t\r\n", start);
  return first != std::string::npos && (text[first] == '{' || text[first] == '[');
}

}  // namespace

Node parse_document(const std::string& text, const std::string& name) {
  core::require(text.size() <= kMaxDocumentBytes, ErrorKind::kUsage,
                "{}: {} bytes; a configuration has at most {} (is this the right file?)", name, text.size(),
                kMaxDocumentBytes);
  if (const size_t bad = first_bad_utf8(text); bad != std::string::npos) {
    const auto line = std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(bad), '\n') + 1;
    core::fail(ErrorKind::kUsage, "{}:{}: not UTF-8 (byte 0x{:02x} at offset {}); save the file as UTF-8", name, line,
               static_cast<uint8_t>(text[bad]), bad);
  }
  TreeBuilder builder(std::make_shared<const std::string>(name));
  if (looks_like_json(text)) {
    read_json(text, builder);
  } else {
    read_yaml(text, builder);
  }
  return builder.take();
}

Node parse_value(const std::string& text, const Position& position) {
  core::require(first_bad_utf8(text) == std::string::npos, ErrorKind::kUsage, "{}: not UTF-8", position.text());
  TreeBuilder builder(position.source, &position);
  read_yaml(text, builder);
  return builder.take();
}

}  // namespace neoloom::launch
