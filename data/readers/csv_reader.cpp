// SPDX-License-Identifier: Apache-2.0
#include "data/readers/csv_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "data/readers/json_reader.h"
#include "data/readers/lines.h"
#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using core::fail;

char delimiter_of(const ReaderRequest& request) {
  if (request.delimiter != '\0') return request.delimiter;
  return request.format == Format::kTsv ? '\t' : ',';
}

/// Cuts text into records of fields.
class RecordScanner {
 public:
  explicit RecordScanner(const ReaderRequest& request)
      : path_(request.path),
        text_(without_byte_order_mark(request.text)),
        delimiter_(delimiter_of(request)),
        delimiter_is_given_(request.delimiter != '\0'),
        quoting_(request.quoting),
        ends_in_cr_(ends_lines_in_cr(request.text)),
        line_(request.first_line),
        record_line_(request.first_line) {}

  /// Reads the fields of the next record that is not a blank line. Returns false at the end.
  bool next(std::vector<std::string>& fields, std::string& error) {
    while (at_ < text_.size() && skip_line_end()) {
    }
    if (at_ >= text_.size()) return false;
    record_line_ = line_;
    error.clear();
    fields.clear();
    do {
      fields.emplace_back();
      if (quoting_ && at_ < text_.size() && text_[at_] == '"') {
        read_quoted(fields.back(), error);
      } else {
        read_plain(fields.back());
      }
    } while (skip_delimiter());
    skip_line_end();
    return true;
  }
  int64_t record_line() const { return record_line_; }
  double share_read() const { return static_cast<double>(at_) / static_cast<double>(text_.size()); }
  /// Returns what to say of a record that has one field although it contains another separator; "" without a suspicion.
  std::string suspicion(const std::vector<std::string>& record) const {
    if (record.size() != 1) return {};
    for (const char other : {'\t', ';', '|', ','}) {
      if (other == delimiter_ || record[0].find(other) == std::string::npos) continue;
      const std::string separator = other == '\t' ? "tabs" : fmt::format("\"{}\"", other);
      const std::string seems = fmt::format("the fields seem to be separated by {}", separator);
      if (delimiter_is_given_) {
        return fmt::format(
            "{}, but data.delimiter is \"{}\", for all files: give them one separator, or correct data.delimiter",
            seems, delimiter_);
      }
      return other == '\t' ? seems + ": set data.format: tsv"
                           : fmt::format("{}: set data.delimiter: {}", seems, separator);
    }
    return {};
  }

 private:
  bool at_line_end() const {
    if (at_ >= text_.size() || text_[at_] == '\n') return true;
    return text_[at_] == '\r' && (ends_in_cr_ || at_ + 1 == text_.size() || text_[at_ + 1] == '\n');
  }
  bool skip_line_end() {
    if (at_ >= text_.size() || !at_line_end()) return false;
    at_ += text_.substr(at_).starts_with("\r\n") ? 2 : 1;
    ++line_;
    return true;
  }
  bool skip_delimiter() {
    if (at_ >= text_.size() || text_[at_] != delimiter_) return false;
    ++at_;
    return true;
  }
  void read_plain(std::string& field) {
    const size_t begin = at_;
    while (!at_line_end() && text_[at_] != delimiter_) ++at_;
    field.append(text_.substr(begin, at_ - begin));
  }
  void read_quoted(std::string& field, std::string& error) {
    const int64_t opened_on = line_;
    ++at_;
    for (;;) {
      const size_t quote = text_.find('"', at_);
      if (quote == std::string_view::npos) {
        fail(ErrorKind::kData,
             "{}: the quote that opens a field on line {} is never closed; close it, double it "
             "if it belongs to the text, or set data.quoting: false when quotes are plain characters in this file",
             path_, opened_on);
      }
      const std::string_view piece = text_.substr(at_, quote - at_);
      field.append(piece);
      line_ += std::count(piece.begin(), piece.end(), ends_in_cr_ ? '\r' : '\n');
      at_ = quote + 1;
      if (at_ >= text_.size() || text_[at_] != '"') break;
      field.push_back('"');
      ++at_;
    }
    if (!at_line_end() && text_[at_] != delimiter_) {
      error = fmt::format(
          "text after the closing quote of the field that opens on line {} "
          "(quotes within a quoted field must be doubled; data.quoting: false reads them as plain characters)",
          opened_on);
      read_plain(field);
    }
  }

  std::string path_;
  std::string_view text_;
  char delimiter_;
  bool delimiter_is_given_;
  bool quoting_;
  bool ends_in_cr_;
  size_t at_ = 0;
  int64_t line_;
  int64_t record_line_;
};

class CsvReader : public RowReader {
 public:
  explicit CsvReader(const ReaderRequest& request) : scanner_(request), as_json_(request.as_json) {
    read_header(request);
    for (const Column& column : request.columns) positions_.push_back(position_of(request.path, column));
  }

  bool next(Row& row) override {
    if (first_record_) {
      fields_ = std::move(*first_record_);
      row.error = first_error_;
      first_record_.reset();
    } else if (!scanner_.next(fields_, row.error)) {
      return false;
    }
    row.line = scanner_.record_line();
    row.cells.assign(positions_.size(), Cell{});
    if (row.error.empty() && fields_.size() != columns_.size()) {
      row.error = fmt::format("{} fields, expected {}", fields_.size(), columns_.size());
    }
    for (size_t i = 0; i < positions_.size() && row.error.empty(); ++i) {
      if (!positions_[i]) continue;
      std::string& field = fields_[*positions_[i]];
      row.error = encoding_complaint(field);
      row.cells[i] = {Cell::Kind::kText, std::move(field), {}};
      if (as_json_ && row.error.empty()) row.cells[i].json = json_text(row.cells[i].text);
    }
    return true;
  }
  const std::vector<std::string>& columns_found() const override { return columns_; }
  double share_read() const override { return scanner_.share_read(); }

 private:
  void read_header(const ReaderRequest& request) {
    std::vector<std::string> record;
    if (!scanner_.next(record, first_error_)) return;
    suspicion_ = scanner_.suspicion(record);
    if (request.header) {
      for (const std::string& name : record) {
        if (first_error_.empty()) first_error_ = encoding_complaint(name);
      }
      if (!first_error_.empty())
        fail(ErrorKind::kData, "{}: the header cannot be read: {}", request.path, first_error_);
      columns_ = std::move(record);
      return;
    }
    for (size_t i = 0; i < record.size(); ++i) columns_.push_back(std::to_string(i));
    first_record_ = std::move(record);
  }
  std::optional<size_t> position_of(const std::string& path, const Column& column) const {
    const auto count = std::count(columns_.begin(), columns_.end(), column.name);
    if (count > 1) {
      fail(ErrorKind::kData, "{}: {} columns are called {} ({}); rename all but one", path, count,
           core::quoted(column.name), column.key);
    }
    if (count == 1) return std::find(columns_.begin(), columns_.end(), column.name) - columns_.begin();
    // A file without any record gets its own message from the caller.
    if (!column.optional && !columns_.empty()) fail_without_column(path, column, columns_, suspicion_);
    return std::nullopt;
  }

  RecordScanner scanner_;
  bool as_json_;
  std::vector<std::string> columns_;
  std::vector<std::optional<size_t>> positions_;  // in a record, per wanted column
  std::optional<std::vector<std::string>> first_record_;
  std::string suspicion_;
  std::string first_error_;
  std::vector<std::string> fields_;
};

}  // namespace

std::unique_ptr<RowReader> open_csv(const ReaderRequest& request) { return std::make_unique<CsvReader>(request); }

}  // namespace neoloom::data
