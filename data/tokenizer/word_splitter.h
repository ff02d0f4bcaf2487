// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string_view>

namespace neoloom::data {

/// GPT-2's splitting of text into words, with the Unicode tables of `tokenizers` (unicode_ranges.h).
/// Thread: threads share the compiled expression; each needs its own Scanner.
class WordSplitter {
 public:
  WordSplitter();
  ~WordSplitter();
  WordSplitter(const WordSplitter&) = delete;
  WordSplitter& operator=(const WordSplitter&) = delete;

  class Scanner {
   public:
    explicit Scanner(const WordSplitter& splitter);
    ~Scanner();
    Scanner(const Scanner&) = delete;
    Scanner& operator=(const Scanner&) = delete;
    /// Returns the size in bytes of the word that starts at byte `at` < text.size() of `text`, which must be valid
    /// UTF-8.
    size_t word_bytes(std::string_view text, size_t at);

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace neoloom::data
