// SPDX-License-Identifier: Apache-2.0
#include "data/prompt_template.h"

#include <algorithm>

#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;

/// The form in which Stanford Alpaca's data was published.
constexpr std::string_view kAlpaca =
    "Below is an instruction that describes a task{?input}, paired with an input that provides further "
    "context{/input}. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n{?input}### Input:\n{input}\n\n{/input}### Response:\n{output}";

}  // namespace

PromptTemplate::PromptTemplate(std::string_view text) {
  parse(text == "alpaca" ? kAlpaca : text);
  check();
}

void PromptTemplate::parse(std::string_view text) {
  std::string plain;
  const auto end_plain = [&] {
    if (!plain.empty()) parts_.push_back({Part::Kind::kText, std::move(plain)});
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
}

/// `at`: byte of its brace, from 1.
void PromptTemplate::add_tag(std::string_view tag, size_t at) {
  const bool begins = tag.starts_with('?');
  const bool ends = tag.starts_with('/');
  if (begins || ends) tag.remove_prefix(1);
  core::require(!tag.empty(), ErrorKind::kUsage,
                "byte {}: the braces hold no column; write {{{{ and }}}} for braces of the text", at);
  const size_t column = column_index(tag);
  if (begins) {
    columns_[column].optional = true;
    open_.push_back(column);
  } else if (ends) {
    core::require(!open_.empty() && open_.back() == column, ErrorKind::kUsage, "byte {}: {{/{}}} closes no {{?{}}}", at,
                  tag, tag);
    open_.pop_back();
  } else {
    response_part_ = parts_.size();
  }
  const auto kind = begins ? Part::Kind::kBegin : ends ? Part::Kind::kEnd : Part::Kind::kColumn;
  parts_.push_back({kind, "", column});
}

size_t PromptTemplate::column_index(std::string_view name) {
  const auto found =
      std::find_if(columns_.begin(), columns_.end(), [&](const Column& each) { return each.name == name; });
  if (found != columns_.end()) return static_cast<size_t>(found - columns_.begin());
  columns_.push_back({std::string(name)});
  return columns_.size() - 1;
}

void PromptTemplate::check() const {
  const bool has_column = !parts_.empty() && parts_[response_part_].kind == Part::Kind::kColumn;
  core::require(has_column, ErrorKind::kUsage,
                "expected \"alpaca\", or a text with columns in braces that ends in the response, such as "
                "\"Question: {{question}}\\nAnswer:{{answer}}\"");
  if (!open_.empty()) {
    core::fail(ErrorKind::kUsage, "{{?{0}}} is not closed by {{/{0}}}", columns_[open_.back()].name);
  }
  const size_t response = parts_[response_part_].column;
  const auto stands = [&](const Part& part) { return part.kind != Part::Kind::kText && part.column == response; };
  core::require(response + 1 == columns_.size() && std::count_if(parts_.begin(), parts_.end(), stands) == 1,
                ErrorKind::kUsage, "the last column, {}, is the response and must stand there alone and once",
                core::quoted(columns_[response].name));
  const bool ends = std::all_of(parts_.begin() + static_cast<std::ptrdiff_t>(response_part_) + 1, parts_.end(),
                                [](const Part& part) { return part.kind == Part::Kind::kText; });
  core::require(ends, ErrorKind::kUsage, "the response, {}, must stand outside of {{?...}}",
                core::quoted(columns_[response].name));
}

std::string PromptTemplate::render(size_t begin, size_t end, const std::vector<std::string>& values) const {
  std::string text;
  for (size_t i = begin; i < end; ++i) {
    const Part& part = parts_[i];
    if (part.kind == Part::Kind::kText) text += part.text;
    if (part.kind == Part::Kind::kColumn) text += values[part.column];
    if (part.kind != Part::Kind::kBegin || !values[part.column].empty()) continue;
    // Skips to the end of what this column encloses.
    while (parts_[i].kind != Part::Kind::kEnd || parts_[i].column != part.column) ++i;
  }
  return text;
}

std::string PromptTemplate::prompt(const std::vector<std::string>& values) const {
  return render(0, response_part_, values);
}

std::string PromptTemplate::response(const std::vector<std::string>& values) const {
  return render(response_part_, parts_.size(), values);
}

}  // namespace neoloom::data
