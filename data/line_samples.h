// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/token_store.h"

namespace neoloom::data {

/// What a line of a stream is to a model.
struct LineSample {
  int64_t line = 0;   // 1-based
  std::string error;  // why it cannot be used; empty: it can
  std::vector<std::vector<int32_t>>
      windows;                    // the tokens of each; of a text that is not cut into windows, the only one
  bool truncated = false;         // tokens were cut off
  std::vector<std::string> kept;  // the kept columns as JSON; null where the row has none or cannot be read
};

/// Tokenises the lines of a stream, each when it comes, as a TokenStore with StoreRequest::every_row tokenises a file.
class LineSamples {
 public:
  /// `name`: of the stream, for messages. `kept`: columns whose values go along; `option`: what names them.
  /// Throws: as LineReader; Error(kUsage) when the request lacks a column name.
  LineSamples(const std::string& name, StoreRequest request, const Tokenizer& tokenizer,
              const std::vector<std::string>& kept, const std::string& option);
  LineSamples(LineSamples&& other) noexcept;
  ~LineSamples();

  /// Overwrites `sample` with that of the next line. Returns false when the line is a header.
  /// Throws: Error(kData) for a header that lacks a column.
  bool read(std::string_view line, LineSample& sample);

 private:
  class Source;
  std::unique_ptr<Source> source_;
};

}  // namespace neoloom::data
