// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "data/token_store.h"

namespace neoloom::data {

/// Tokens [begin, end) of a text.
struct Window {
  size_t begin = 0;
  size_t end = 0;
};

/// Cuts a text of `tokens` tokens into windows of `length`, each of which shares `stride` tokens with the one before
/// it, as transformers' tokenizer(..., return_overflowing_tokens=True) does: from the start of the text, or with
/// `from_end` from its end, so that the first window holds the last tokens. The last window may be shorter. A text that
/// fits is one window. `stride` is less than `length`.
std::vector<Window> windows_of(size_t tokens, size_t length, size_t stride, bool from_end);

/// Takes the windows of a store's rows as samples of their own, for training. unpacked() has the rows.
std::shared_ptr<const TokenStore> windows_apart(std::shared_ptr<const TokenStore> store);

/// The rows of a store that have several windows.
int64_t rows_in_windows(const TokenStore& store);

/// "12 of 60 rows (20 %) are longer than max_length and have 150 windows"; empty for a store without windows.
std::string window_summary(const TokenStore& store);

}  // namespace neoloom::data
