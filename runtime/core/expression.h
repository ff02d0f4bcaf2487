// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "runtime/core/error.h"

namespace neoloom::core {

/// A regular expression of PCRE2, whose syntax is that of Python's re but for rare constructs. One thread at a time.
class Expression {
 public:
  /// `where` says in messages where the expression was written.
  /// Throws: Error(kind) with the position of the mistake.
  Expression(const std::string& pattern, std::string where, ErrorKind kind);
  ~Expression();
  Expression(Expression&&) noexcept;
  Expression& operator=(Expression&&) noexcept;

  /// Whether the whole text matches, as re.fullmatch says.
  /// Throws: Error(kind) when the search takes too long.
  bool matches(std::string_view text) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace neoloom::core
