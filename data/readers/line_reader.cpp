// SPDX-License-Identifier: Apache-2.0
#include "data/readers/line_reader.h"

#include <utility>

#include "data/readers/encoding.h"
#include "runtime/core/error.h"

namespace neoloom::data {

using core::ErrorKind;

LineReader::LineReader(std::string name, const Options& options, std::vector<Column> columns, bool as_json)
    : encoding_(options.encoding) {
  Options named = options;
  if (named.format == "auto") named.format = "jsonl";
  core::require(named.format != "parquet", ErrorKind::kUsage,
                "{}: data.format is parquet, which has no lines; expected jsonl, csv, tsv or text", name);
  request_ = reader_request(name, "", named);
  request_.columns = std::move(columns);
  request_.as_json = as_json;
  expects_header_ = request_.header && (request_.format == Format::kCsv || request_.format == Format::kTsv);
  open_rows(request_);
}

std::string LineReader::decoded(std::string_view line) const {
  if (encoding_ == "utf-8") return std::string(line);
  std::string text;
  Recoder recoder(request_.path, encoding_, [&text](std::string_view piece) {
    text += piece;
    return true;
  });
  recoder.add(line);
  recoder.finish();
  return text;
}

bool LineReader::read(std::string_view line, Row& row) {
  ++number_;
  ReaderRequest request = request_;
  if (expects_header_) {
    header_ = decoded(line) + "\n";
    request.text = header_;
    expects_header_ = open_rows(request)->columns_found().empty();  // a blank line is none
    return false;
  }
  row = Row{};
  try {
    const std::string text = header_ + decoded(line) + "\n";
    request.text = text;
    request.first_line = number_ - (header_.empty() ? 0 : 1);
    if (!open_rows(request)->next(row)) row.error = "the line is empty";
  } catch (const core::Error& error) {
    row.error = error.what();
  }
  row.line = number_;
  return true;
}

}  // namespace neoloom::data
