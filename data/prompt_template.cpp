// SPDX-License-Identifier: Apache-2.0
#include "data/prompt_template.h"

#include <algorithm>

#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using Kind = TemplatePart::Kind;

/// The form in which Stanford Alpaca's data was published.
constexpr std::string_view kAlpaca =
    "Below is an instruction that describes a task{?input}, paired with an input that provides further "
    "context{/input}. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n{?input}### Input:\n{input}\n\n{/input}### Response:\n{output}";

/// The template that joins two columns.
TemplateParts pair_of(const Options& options) {
  TemplateParts pair;
  pair.columns = {{options.prompt_column}, {options.response_column}};
  pair.parts = {{Kind::kColumn, "", 0}, {Kind::kColumn, "", 1}};
  if (options.prompt_template == kNewline) pair.parts.insert(pair.parts.begin() + 1, {Kind::kText, "\n", 0});
  return pair;
}

}  // namespace

PromptTemplate::PromptTemplate(std::string_view text) : template_(parse_template(text == "alpaca" ? kAlpaca : text)) {
  check();
}

PromptTemplate::PromptTemplate(const Options& options)
    : template_(options.prompt_column.empty()
                    ? parse_template(options.prompt_template == "alpaca" ? kAlpaca : options.prompt_template)
                    : pair_of(options)) {
  check();
}

void PromptTemplate::check() {
  const auto& [parts, columns] = template_;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].kind == Kind::kColumn) response_part_ = i;
  }
  core::require(!parts.empty() && parts[response_part_].kind == Kind::kColumn, ErrorKind::kUsage,
                "expected \"alpaca\", or a text with columns in braces that ends in the response, such as "
                "\"Question: {{question}}\\nAnswer:{{answer}}\"");
  const size_t response = parts[response_part_].column;
  const auto stands = [&](const TemplatePart& part) { return part.kind != Kind::kText && part.column == response; };
  core::require(response + 1 == columns.size() && std::count_if(parts.begin(), parts.end(), stands) == 1,
                ErrorKind::kUsage, "the last column, {}, is the response and must stand there alone and once",
                core::quoted(columns[response].name));
  const bool ends = std::all_of(parts.begin() + static_cast<std::ptrdiff_t>(response_part_) + 1, parts.end(),
                                [](const TemplatePart& part) { return part.kind == Kind::kText; });
  core::require(ends, ErrorKind::kUsage, "the response, {}, must stand outside of {{?...}}",
                core::quoted(columns[response].name));
}

std::string PromptTemplate::render(size_t begin, size_t end, const std::vector<std::string>& values) const {
  const std::vector<TemplatePart>& parts = template_.parts;
  std::string text;
  for (size_t i = begin; i < end; ++i) {
    const TemplatePart& part = parts[i];
    if (part.kind == Kind::kText) text += part.text;
    if (part.kind == Kind::kColumn) text += values[part.column];
    if (part.kind != Kind::kBegin || !values[part.column].empty()) continue;
    // Skips to the end of what this column encloses.
    while (parts[i].kind != Kind::kEnd || parts[i].column != part.column) ++i;
  }
  return text;
}

std::string PromptTemplate::prompt(const std::vector<std::string>& values) const {
  return render(0, response_part_, values);
}

std::string PromptTemplate::response(const std::vector<std::string>& values) const {
  return render(response_part_, template_.parts.size(), values);
}

}  // namespace neoloom::data
