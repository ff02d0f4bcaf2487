// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "data/readers/decompress.h"

namespace neoloom::data {

/// Converts pieces of a text from `encoding` (data.encoding: latin-1, cp1252, utf-8-replace) to UTF-8, with the results
/// of Python's decoders; utf-8-replace puts U+FFFD for what is not UTF-8. Pieces may end within a character.
class Recoder {
 public:
  /// `path` names the file in messages.
  Recoder(std::string path, const std::string& encoding, TakePiece take);

  /// Hands the converted piece to `take`, and returns what it returns.
  /// Throws: Error(kData) for a byte that the encoding does not have, with its line.
  bool add(std::string_view piece);
  /// Hands over what an incomplete character at the end becomes.
  void finish();

 private:
  std::string from_one_byte_each(std::string_view piece);

  std::string path_;
  bool replaces_;
  bool windows_;
  TakePiece take_;
  std::string tail_;   // bytes of an incomplete character
  int64_t lines_ = 1;  // so far
};

}  // namespace neoloom::data
