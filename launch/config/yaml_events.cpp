// SPDX-License-Identifier: Apache-2.0
#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <charconv>
#include <sstream>

#include "launch/config/tree_builder.h"
#include "runtime/core/error.h"

namespace neoloom::launch {

using core::ErrorKind;

Node resolve_plain(std::string text) {
  Node node;
  node.kind = Node::Kind::kString;
  const auto is = [&](std::string_view a, std::string_view b, std::string_view c) {
    return text == a || text == b || text == c;
  };
  if (text.empty() || text == "~" || is("null", "Null", "NULL")) {
    node.kind = Node::Kind::kNull;
  } else if (is("true", "True", "TRUE") || is("false", "False", "FALSE")) {
    node.kind = Node::Kind::kBool;
    node.boolean = text[0] == 't' || text[0] == 'T';
  } else {
    const char* begin = text.data() + (text[0] == '+' ? 1 : 0);
    const char* end = text.data() + text.size();
    const bool numeric = text.find_first_not_of("0123456789+-.eE") == std::string::npos &&
                         text.find_first_of("0123456789") != std::string::npos &&
                         std::string_view("eE").find(*begin) == std::string_view::npos;
    if (numeric) {
      if (const auto result = std::from_chars(begin, end, node.integer);
          result.ptr == end && result.ec == std::errc{}) {
        node.kind = Node::Kind::kInteger;
        node.real = static_cast<double>(node.integer);
      } else if (const auto real = std::from_chars(begin, end, node.real); real.ptr == end && real.ec == std::errc{}) {
        node.kind = Node::Kind::kReal;
      }
    }
  }
  node.text = std::move(text);
  return node;
}

namespace {

class Handler : public YAML::EventHandler {
 public:
  explicit Handler(TreeBuilder& builder) : builder_(builder) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    scalar(mark, resolve_plain(""));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse(mark, "an alias (*name)"); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    if (tag == "!") {  // quoted
      Node node;
      node.kind = Node::Kind::kString;
      node.text = value;
      scalar(mark, std::move(node));
    } else {
      refuse_tag(mark, tag);
      scalar(mark, resolve_plain(value));
    }
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    begin(mark, tag, anchor, Node::Kind::kList);
  }
  void OnSequenceEnd() override { builder_.end(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    begin(mark, tag, anchor, Node::Kind::kMap);
  }
  void OnMapEnd() override { builder_.end(); }

 private:
  static size_t line(const YAML::Mark& mark) { return static_cast<size_t>(mark.line) + 1; }

  void scalar(const YAML::Mark& mark, Node node) {
    if (builder_.expects_key()) {
      core::require(!node.is_null(), ErrorKind::kUsage, "{}: a key without a name", builder_.at(line(mark)).text());
      builder_.key(std::move(node.text), line(mark));
    } else {
      builder_.scalar(std::move(node), line(mark));
    }
  }
  void begin(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Node::Kind kind) {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    builder_.begin(kind, line(mark));
  }
  [[noreturn]] void refuse(const YAML::Mark& mark, std::string_view what) const {
    core::fail(ErrorKind::kUsage, "{}: {} is not accepted in a configuration; write the value itself",
               builder_.at(line(mark)).text(), what);
  }
  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
    if (anchor != YAML::NullAnchor) refuse(mark, "an anchor (&name)");
  }
  void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (!tag.empty() && tag != "?" && tag != "!") refuse(mark, "a tag (" + tag + ")");
  }

  TreeBuilder& builder_;
};

/// Names a blank that YAML does not allow in indentation, and the first line that has it. Editors insert such blanks,
/// and no parser names them.
struct WrongBlank {
  size_t line = 0;  // 0: none
  std::string_view name;
};

WrongBlank find_wrong_blank(std::string_view text) {
  constexpr std::string_view kNoBreakSpace = "\xC2\xA0";
  for (size_t line = 1, begin = 0; begin < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view rest = text.substr(begin, end - begin);
    const std::string_view first = rest.substr(std::min(rest.find_first_not_of(' '), rest.size()));
    if (first.starts_with('\t')) return {line, "a tab"};
    if (first.starts_with(kNoBreakSpace)) return {line, "a no-break space (U+00A0)"};
    begin = end + 1;
  }
  return {};
}

}  // namespace

void read_yaml(const std::string& text, TreeBuilder& builder) {
  try {
    // yaml-cpp silently closes a quote that is still open at the final line break. A last line without a break prevents
    // that.
    std::istringstream stream(text + "\n#");
    YAML::Parser parser(stream);
    Handler handler(builder);
    if (!parser.HandleNextDocument(handler)) return;
    core::require(!parser, ErrorKind::kUsage, "{}: a second YAML document (---) follows; a configuration is one",
                  builder.at(1).text());
  } catch (const YAML::Exception& error) {
    if (const WrongBlank blank = find_wrong_blank(text); blank.line > 0) {
      core::fail(ErrorKind::kUsage, "{}: the line is indented with {}; YAML wants plain spaces there",
                 builder.at(blank.line).text(), blank.name);
    }
    core::fail(ErrorKind::kUsage, "{}: not valid YAML: {}", builder.at(static_cast<size_t>(error.mark.line) + 1).text(),
               error.msg);
  }
}

}  // namespace neoloom::launch
