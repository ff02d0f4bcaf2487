// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/expression.h"

#include <utility>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "runtime/core/text.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::core {
namespace {

using Code = UniqueHandle<PointerTraits<pcre2_code*, pcre2_code_free>>;
using MatchData = UniqueHandle<PointerTraits<pcre2_match_data*, pcre2_match_data_free>>;

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Expression::Compiled {
  std::string pattern, where;
  ErrorKind kind;
  Code code;
  MatchData match;
};

Expression::Expression(const std::string& pattern, std::string where, ErrorKind kind)
    : compiled_(std::make_unique<Compiled>(Compiled{pattern, std::move(where), kind, {}, {}})) {
  int error = 0;
  size_t offset = 0;
  compiled_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                      PCRE2_UTF | PCRE2_ANCHORED | PCRE2_ENDANCHORED, &error, &offset, nullptr));
  require(compiled_->code.valid(), kind, "{}: {} is no regular expression: {} at character {}", compiled_->where,
          quoted(pattern), error_text(error), offset);
  compiled_->match.reset(pcre2_match_data_create_from_pattern(compiled_->code.get(), nullptr));
  require(compiled_->match.valid(), ErrorKind::kInternal, "PCRE2 could not allocate its match data");
}

Expression::~Expression() = default;
Expression::Expression(Expression&&) noexcept = default;
Expression& Expression::operator=(Expression&&) noexcept = default;

bool Expression::matches(std::string_view text) const {
  const int found = pcre2_match(compiled_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0,
                                compiled_->match.get(), nullptr);
  require(found >= 0 || found == PCRE2_ERROR_NOMATCH, compiled_->kind, "{}: {} cannot be compared with \"{}\": {}",
          compiled_->where, quoted(compiled_->pattern), text, error_text(found));
  return found >= 0;
}

}  // namespace neoloom::core
