// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace neoloom::data {

/// Makes a prompt and a response from the columns of a row (data.template). `{name}` stands for a column, `{?name}` to
/// `{/name}` encloses what is left out where the column is empty, `{{` and `}}` are braces. The last column is the
/// response; the text before it is the prompt.
class PromptTemplate {
 public:
  struct Column {
    std::string name;
    bool optional = false;  // named by a `{?name}`: a row may lack it
  };

  /// `text`: "alpaca", or a template. Throws: Error(kUsage) saying what is wrong and where.
  explicit PromptTemplate(std::string_view text);

  /// Each column once, in order; the last is the response.
  const std::vector<Column>& columns() const { return columns_; }

  /// `values`: of columns(), in that order. Those of the prompt are enough.
  std::string prompt(const std::vector<std::string>& values) const;
  /// `values`: of all columns.
  std::string response(const std::vector<std::string>& values) const;

 private:
  struct Part {
    enum class Kind { kText, kColumn, kBegin, kEnd };
    Kind kind = Kind::kText;
    std::string text;   // kText
    size_t column = 0;  // of the others
  };
  void parse(std::string_view text);
  void add_tag(std::string_view tag, size_t at);
  size_t column_index(std::string_view name);
  void check() const;
  std::string render(size_t begin, size_t end, const std::vector<std::string>& values) const;

  std::vector<Column> columns_;
  std::vector<Part> parts_;
  std::vector<size_t> open_;  // columns of `{?name}` that are not closed yet
  size_t response_part_ = 0;  // of parts_
};

}  // namespace neoloom::data
