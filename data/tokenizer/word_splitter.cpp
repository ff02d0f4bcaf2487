// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer/word_splitter.h"

#include <string>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "data/tokenizer/unicode_ranges.h"
#include "runtime/core/error.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using core::fail;

constexpr size_t kJitStackStartBytes = size_t{32} * 1024;
constexpr size_t kJitStackLargestBytes = size_t{1024} * 1024;

using Code = core::UniqueHandle<core::PointerTraits<pcre2_code*, pcre2_code_free>>;
using MatchData = core::UniqueHandle<core::PointerTraits<pcre2_match_data*, pcre2_match_data_free>>;
using MatchContext = core::UniqueHandle<core::PointerTraits<pcre2_match_context*, pcre2_match_context_free>>;
using JitStack = core::UniqueHandle<core::PointerTraits<pcre2_jit_stack*, pcre2_jit_stack_free>>;

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

/// Returns this expression with ranges in place of the classes:
/// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
std::string expression() {
  const std::string letters = kLetterRanges;
  const std::string numbers = kNumberRanges;
  const std::string spaces = kSpaceRanges;
  return "'s|'t|'re|'ve|'m|'ll|'d| ?[" + letters + "]+| ?[" + numbers + "]+| ?[^" + spaces + letters + numbers +
         "]+|[" + spaces + "]+(?![^" + spaces + "])|[" + spaces + "]+";
}

}  // namespace

struct WordSplitter::Compiled {
  Code code;
};

WordSplitter::WordSplitter() : compiled_(std::make_unique<Compiled>()) {
  const std::string pattern = expression();
  int error = 0;
  size_t offset = 0;
  compiled_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                      PCRE2_UTF | PCRE2_ANCHORED, &error, &offset, nullptr));
  if (!compiled_->code.valid()) {
    fail(ErrorKind::kInternal, "pcre2_compile of the word expression failed at {}: {}", offset, error_text(error));
  }
  // Without a JIT (hardened kernels) pcre2_match interprets: slower, same words.
  pcre2_jit_compile(compiled_->code.get(), PCRE2_JIT_COMPLETE);
}

WordSplitter::~WordSplitter() = default;

struct WordSplitter::Scanner::State {
  pcre2_code* code = nullptr;
  MatchData match;
  JitStack stack;
  MatchContext context;
};

WordSplitter::Scanner::Scanner(const WordSplitter& splitter) : state_(std::make_unique<State>()) {
  state_->code = splitter.compiled_->code.get();
  state_->match.reset(pcre2_match_data_create(1, nullptr));
  state_->stack.reset(pcre2_jit_stack_create(kJitStackStartBytes, kJitStackLargestBytes, nullptr));
  state_->context.reset(pcre2_match_context_create(nullptr));
  core::require(state_->match.valid() && state_->context.valid(), ErrorKind::kInternal,
                "PCRE2 could not allocate its match data");
  if (state_->stack.valid()) pcre2_jit_stack_assign(state_->context.get(), nullptr, state_->stack.get());
}

WordSplitter::Scanner::~Scanner() = default;

size_t WordSplitter::Scanner::word_bytes(std::string_view text, size_t at) {
  // PCRE2_NO_UTF_CHECK: a check of the whole text at every word would cost quadratic time.
  const int found = pcre2_match(state_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                PCRE2_NO_UTF_CHECK, state_->match.get(), state_->context.get());
  if (found < 0) {
    fail(ErrorKind::kInternal, "pcre2_match of the word expression failed at byte {} of {}: {}", at, text.size(),
         error_text(found));
  }
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(state_->match.get());
  return offsets[1] - offsets[0];
}

}  // namespace neoloom::data
