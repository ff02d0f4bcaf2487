// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/options.h"

namespace neoloom::data {

enum class Format { kJsonLines, kJsonArray, kCsv, kTsv, kText };

/// The format that `options.format` names, or that the file's name says: .jsonl .ndjson .json .csv .tsv .tab .txt
/// .text. A .json file whose first character is '[' holds one array of rows, any other one object a line. Throws:
/// Error(kData) for other names, with those that are known.
Format format_of(const std::string& path, const Options& options, std::string_view text);

/// Finds the faults of a whole file that would otherwise show as thousands of unreadable lines.
/// Throws: Error(kData): UTF-16 (with the command that converts it), a compressed or binary file.
void require_text(const std::string& path, std::string_view text);

/// Whether the file's name says its format.
bool names_a_format(const std::string& path);

/// One value of a row. All values of CSV, TSV and text are kText.
struct Cell {
  enum class Kind { kMissing, kText, kInteger, kList, kOther };
  Kind kind = Kind::kMissing;
  std::string text;                // kText; kInteger: its decimal digits; kOther: what it is, for the message
  std::vector<std::string> items;  // kList: texts, or the digits of integers
  std::string label = {};          // kOther: what it is in a column of labels (0 for 0.0, true); empty: nothing
};

/// A column that is wanted, and the configuration key that named it.
struct Column {
  std::string name;
  std::string key;        // e.g. "data.text_column"
  bool optional = false;  // the file may lack it
};

struct Row {
  int64_t line = 0;         // 1-based line on which it starts
  std::string error;        // why it cannot be read; empty: it can
  std::vector<Cell> cells;  // in the order of the columns wanted
};

/// Rows of a file in order. Blank lines between rows are no rows (but are rows of a text file).
class RowReader {
 public:
  virtual ~RowReader() = default;
  /// Overwrites `row` with the next one; false at the end.
  /// Throws: Error(kData) when the file as a whole cannot be read, e.g. a quote that is never closed.
  virtual bool next(Row& row) = 0;
  /// Names found: the header, or the keys of the first JSON object once it was read.
  virtual const std::vector<std::string>& columns_found() const = 0;
};

struct ReaderRequest {
  std::string path;       // for messages
  std::string_view text;  // the file's bytes; must outlive the reader
  Format format = Format::kJsonLines;
  bool header = true;
  bool quoting = true;
  std::vector<Column> columns;
};

/// Throws: Error(kData): a CSV or TSV without a wanted column, with the columns found.
std::unique_ptr<RowReader> open_rows(const ReaderRequest& request);

/// The error for a column that no row has. `suspicion`: what else may be wrong with the file.
[[noreturn]] void fail_without_column(const std::string& path, const Column& column,
                                      const std::vector<std::string>& found, const std::string& suspicion = "");

}  // namespace neoloom::data
