// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace neoloom::data {

/// What a template (data.template) is made of: `{name}` stands for a column, `{?name}` begins and `{/name}` ends what
/// the column encloses, `{{` and `}}` are braces.
struct TemplatePart {
  enum class Kind { kText, kColumn, kBegin, kEnd };
  Kind kind = Kind::kText;
  std::string text;   // kText
  size_t column = 0;  // of the others, in TemplateParts::columns
};

struct TemplateColumn {
  std::string name;
  bool optional = false;  // named by a `{?name}`: a row may lack it
};

struct TemplateParts {
  std::vector<TemplatePart> parts;
  std::vector<TemplateColumn> columns;  // each once, in order
};

/// Throws: Error(kUsage) saying what is wrong and where.
TemplateParts parse_template(std::string_view text);

}  // namespace neoloom::data
