// SPDX-License-Identifier: Apache-2.0
#include "data/template_parts.h"

#include <algorithm>
#include <utility>

#include "runtime/core/error.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;

class Parser {
 public:
  TemplateParts parse(std::string_view text) {
    std::string plain;
    const auto end_plain = [&] {
      if (!plain.empty()) found_.parts.push_back({TemplatePart::Kind::kText, std::move(plain)});
      plain.clear();
    };
    for (size_t at = 0; at < text.size(); ++at) {
      const bool brace = text[at] == '{' || text[at] == '}';
      if (!brace || (at + 1 < text.size() && text[at + 1] == text[at])) {
        plain += text[at];
        at += brace ? 1 : 0;
        continue;
      }
      const size_t close = text.find_first_of("{}", at + 1);
      core::require(text[at] == '{' && close != std::string_view::npos && text[close] == '}', ErrorKind::kUsage,
                    "the brace at byte {} has no partner; write {{{{ or }}}} for a brace of the text", at + 1);
      end_plain();
      add_tag(text.substr(at + 1, close - at - 1), at + 1);
      at = close;
    }
    end_plain();
    if (!open_.empty()) {
      core::fail(ErrorKind::kUsage, "{{?{0}}} is not closed by {{/{0}}}", found_.columns[open_.back()].name);
    }
    return std::move(found_);
  }

 private:
  /// `at`: byte of its brace, from 1.
  void add_tag(std::string_view tag, size_t at) {
    const bool begins = tag.starts_with('?');
    const bool ends = tag.starts_with('/');
    if (begins || ends) tag.remove_prefix(1);
    core::require(!tag.empty(), ErrorKind::kUsage,
                  "byte {}: the braces hold no column; write {{{{ and }}}} for braces of the text", at);
    const size_t column = column_index(tag);
    if (begins) {
      found_.columns[column].optional = true;
      open_.push_back(column);
    } else if (ends) {
      core::require(!open_.empty() && open_.back() == column, ErrorKind::kUsage, "byte {}: {{/{}}} closes no {{?{}}}",
                    at, tag, tag);
      open_.pop_back();
    }
    using enum TemplatePart::Kind;
    found_.parts.push_back({begins ? kBegin : ends ? kEnd : kColumn, "", column});
  }

  size_t column_index(std::string_view name) {
    std::vector<TemplateColumn>& columns = found_.columns;
    const auto found =
        std::find_if(columns.begin(), columns.end(), [&](const TemplateColumn& each) { return each.name == name; });
    if (found != columns.end()) return static_cast<size_t>(found - columns.begin());
    columns.push_back({std::string(name)});
    return columns.size() - 1;
  }

  TemplateParts found_;
  std::vector<size_t> open_;  // columns of `{?name}` that are not closed yet
};

}  // namespace

TemplateParts parse_template(std::string_view text) { return Parser().parse(text); }

}  // namespace neoloom::data
