// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/options.h"
#include "data/readers/rows.h"

namespace neoloom::data {

/// Reads rows from the lines of a stream, each when it comes, as RowReader reads them from a file. A row is one line,
/// those of CSV, too.
class LineReader {
 public:
  /// `name`: of the stream, for messages. `options.format` names the format; `auto` is jsonl.
  /// Throws: Error(kUsage) for Parquet, Error(kData) for a column that no text file has.
  LineReader(std::string name, const Options& options, std::vector<Column> columns, bool as_json);

  /// Overwrites `row` with that of the next line. A line that is none, such as an empty one, has row.error. Returns
  /// false when the line is the header of CSV or TSV.
  /// Throws: Error(kData) for a header that lacks a column, listing those found.
  bool read(std::string_view line, Row& row);
  /// 1-based number of the last line read.
  int64_t number() const { return number_; }

 private:
  /// Converts a line to UTF-8. Throws: Error(kData) as Recoder.
  std::string decoded(std::string_view line) const;

  std::string encoding_;
  ReaderRequest request_;
  bool expects_header_ = false;
  std::string header_;  // with its line break
  int64_t number_ = 0;
};

}  // namespace neoloom::data
