// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/options.h"

namespace neoloom::data {

enum class Format { kJsonLines, kJsonArray, kCsv, kTsv, kText, kParquet };

inline constexpr std::string_view kParquetMagic = "PAR1";

/// Returns the format that `options.format` names, else the one of the file's extension: .jsonl .ndjson .json .csv .tsv
/// .tab .txt .text, with .gz or .zst behind it or not, .parquet .pq. A file that starts as Parquet is Parquet under any
/// name. A .json file that starts with '[' is one array of rows; any
/// other is one object a line. Throws: Error(kData) for another extension, listing the known ones.
Format format_of(const std::string& path, const Options& options, std::string_view text);

/// Rejects a file that is no UTF-8 text at all, which would otherwise give thousands of unreadable lines.
/// Throws: Error(kData) for UTF-16 (with the command that converts it), and for a binary file, such as an archive.
void require_text(const std::string& path, std::string_view text);

/// Says why `text` is not UTF-8, and which data.encoding would read it; empty when it is.
std::string encoding_complaint(std::string_view text);

/// Whether the file's extension names a format.
bool names_a_format(const std::string& path);

/// Returns the extension in lower case, without the dot and without that of a compression: "csv" for a.csv.gz.
std::string format_extension(const std::string& path);

/// One value of a row. All values of CSV, TSV and text are kText.
struct Cell {
  enum class Kind { kMissing, kText, kInteger, kList, kOther };
  Kind kind = Kind::kMissing;
  std::string text;                  // kText; kInteger: decimal digits; kOther: its type, for messages
  std::vector<std::string> items;    // kList: texts, or the digits of integers
  std::string label = {};            // kOther: its text as a label ("0" for 0.0, "true"); empty: none
  std::vector<double> numbers = {};  // of JSON: a number, or the items of a list of numbers alone
  std::string json = {};             // with ReaderRequest::as_json: the whole value
};

/// A column to read, and the configuration key that names it.
struct Column {
  std::string name;
  std::string key;        // e.g. "data.text_column"
  bool optional = false;  // the file may lack it
};

struct Row {
  int64_t line = 0;         // 1-based line on which it starts
  std::string error;        // why it cannot be read; empty: it can
  std::vector<Cell> cells;  // in the order of ReaderRequest::columns
};

/// Reads the rows of a file in order. Skips blank lines, except in a text file, where they are rows.
class RowReader {
 public:
  virtual ~RowReader() = default;
  /// Overwrites `row` with the next one; returns false at the end.
  /// Throws: Error(kData) when the file as a whole cannot be read, e.g. a quote that is never closed.
  virtual bool next(Row& row) = 0;
  /// Returns the column names found: the header, or the keys of the first JSON object once it was read.
  virtual const std::vector<std::string>& columns_found() const = 0;
  /// Returns the share of the file that has been read, 0 to 1.
  virtual double share_read() const = 0;
};

struct ReaderRequest {
  std::string path;       // for messages, and to open a Parquet file
  std::string_view text;  // the file's bytes; must outlive the reader
  Format format = Format::kJsonLines;
  bool header = true;
  bool quoting = true;
  char delimiter = '\0';  // CSV, TSV; 0: that of the format
  std::vector<Column> columns = {};
  bool as_json = false;    // fill Cell::json
  int64_t first_line = 1;  // CSV, TSV: the number of the first line of `text`, for messages
};

/// Returns what opens the file with these options; `columns` are to be filled in.
ReaderRequest reader_request(const std::string& path, std::string_view text, const Options& options);

/// Throws: Error(kData) when a CSV or TSV lacks a requested column, listing those found.
std::unique_ptr<RowReader> open_rows(const ReaderRequest& request);

/// Throws Error(kData) for a column that no row has. `suspicion`: a further hint about the file.
[[noreturn]] void fail_without_column(const std::string& path, const Column& column,
                                      const std::vector<std::string>& found, const std::string& suspicion = "");

}  // namespace neoloom::data
