// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "data/options.h"
#include "data/template_parts.h"

namespace neoloom::data {

/// Makes a prompt and a response from the columns of a row (data.template). `{name}` stands for a column, `{?name}` to
/// `{/name}` encloses what is left out where the column is empty, `{{` and `}}` are braces. The last column is the
/// response; the text before it is the prompt.
class PromptTemplate {
 public:
  using Column = TemplateColumn;

  /// `text`: "alpaca", or a template. Throws: Error(kUsage) saying what is wrong and where.
  explicit PromptTemplate(std::string_view text);
  /// The template of `options`, or the one that puts a line break or nothing between their prompt_column and their
  /// response_column.
  explicit PromptTemplate(const Options& options);

  /// Each column once, in order; the last is the response.
  const std::vector<Column>& columns() const { return template_.columns; }

  /// `values`: of columns(), in that order. Those of the prompt are enough.
  std::string prompt(const std::vector<std::string>& values) const;
  /// `values`: of all columns.
  std::string response(const std::vector<std::string>& values) const;

 private:
  void check();
  std::string render(size_t begin, size_t end, const std::vector<std::string>& values) const;

  TemplateParts template_;
  size_t response_part_ = 0;  // of its parts
};

}  // namespace neoloom::data
