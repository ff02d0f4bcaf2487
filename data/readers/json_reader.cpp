// SPDX-License-Identifier: Apache-2.0
#include "data/readers/json_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "data/readers/lines.h"
#include "runtime/core/error.h"
#include "runtime/core/json.h"
#include "runtime/core/text.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using core::fail;
using nlohmann::json;

Cell other(std::string what) { return {Cell::Kind::kOther, std::move(what), {}}; }

std::vector<double> numbers_of(const json& list) {
  std::vector<double> numbers;
  for (const json& item : list) {
    if (!item.is_number()) return {};
    numbers.push_back(item.get<double>());
  }
  return numbers;
}

Cell list_cell(const json& list) {
  Cell cell{Cell::Kind::kList, {}, {}};
  for (const json& item : list) {
    if (item.is_string()) {
      cell.items.push_back(item.get<std::string>());
    } else if (item.is_number_integer()) {
      cell.items.push_back(item.dump());
    } else {
      return other(fmt::format("a list that holds {} ({})", item.type_name(),
                               core::printable(item.dump(-1, ' ', false, json::error_handler_t::replace), 40)));
    }
  }
  return cell;
}

/// Returns the library's message without its error number, cut to the length of a line.
std::string parse_complaint(const json::exception& error) {
  std::string_view text = error.what();
  const size_t end = text.find("] ");
  if (text.starts_with("[") && end != std::string_view::npos) text.remove_prefix(end + 2);
  return fmt::format("not valid JSON: {}", core::printable(text, 160));
}

class JsonReader : public RowReader {
 public:
  explicit JsonReader(const ReaderRequest& request) : request_(request) {}

  bool next(Row& row) override {
    std::string_view text;
    if (!next_element(text, row.line)) return false;
    row.cells.assign(request_.columns.size(), Cell{});
    row.error = encoding_complaint(text);
    if (row.error.empty()) fill(text, row);
    return true;
  }
  const std::vector<std::string>& columns_found() const override { return columns_; }

 protected:
  /// Gives the text of the next row and the line on which it starts.
  virtual bool next_element(std::string_view& text, int64_t& line) = 0;
  ReaderRequest request_;

 private:
  void fill(std::string_view text, Row& row) {
    row.error = core::json_excess(text);
    if (!row.error.empty()) return;
    json document;
    try {
      document = json::parse(text);
    } catch (const json::exception& error) {
      row.error = parse_complaint(error);
      return;
    }
    if (!document.is_object()) {
      row.error = fmt::format("expected a JSON object, found {}", document.type_name());
      return;
    }
    if (columns_.empty()) {
      for (const auto& [key, value] : document.items()) columns_.push_back(key);
    }
    for (size_t i = 0; i < request_.columns.size(); ++i) {
      const auto found = document.find(request_.columns[i].name);
      if (found == document.end()) continue;
      row.cells[i] = cell_of_json(*found);
      if (request_.as_json) row.cells[i].json = found->dump();
    }
  }
  std::vector<std::string> columns_;
};

class JsonLinesReader : public JsonReader {
 public:
  explicit JsonLinesReader(const ReaderRequest& request)
      : JsonReader(request), lines_(without_byte_order_mark(request.text)) {}
  double share_read() const override { return lines_.share_read(); }

 protected:
  bool next_element(std::string_view& text, int64_t& line) override {
    do {
      if (!lines_.next(text)) return false;
    } while (text.find_first_not_of(" \t") == std::string_view::npos);
    line = lines_.number();
    return true;
  }

 private:
  Lines lines_;
};

class JsonArrayReader : public JsonReader {
 public:
  explicit JsonArrayReader(const ReaderRequest& request)
      : JsonReader(request), text_(without_byte_order_mark(request.text)) {
    skip_blanks();
    if (at_ >= text_.size() || text_[at_] != '[') fail_at("expected '[' at the start of a JSON array of rows");
    ++at_;
  }
  double share_read() const override { return static_cast<double>(at_) / static_cast<double>(text_.size()); }

 protected:
  bool next_element(std::string_view& text, int64_t& line) override {
    if (finished_) return false;
    skip_blanks();
    if (at_ < text_.size() && text_[at_] == ']') return finish();
    if (!first_) {
      if (at_ >= text_.size() || text_[at_] != ',') fail_at("expected ',' or ']' after a row");
      ++at_;
      skip_blanks();
    }
    if (at_ >= text_.size()) fail_at("the JSON array is not closed");
    first_ = false;
    line = line_;
    const size_t begin = at_;
    skip_element();
    text = text_.substr(begin, at_ - begin);
    return true;
  }

 private:
  bool finish() {
    ++at_;
    skip_blanks();
    if (at_ < text_.size()) fail_at("text after the end of the JSON array");
    finished_ = true;
    return false;
  }
  void skip_blanks() {
    for (; at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos; ++at_) {
      if (text_[at_] == '\n') ++line_;
    }
  }
  /// Moves to the ',' or ']' that ends the element, past brackets and strings in it.
  void skip_element() {
    int64_t depth = 0;
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\n') ++line_;
      if (c == '"') skip_string();
      if (c == '{' || c == '[') ++depth;
      if (depth == 0 && (c == ',' || c == ']')) return;
      if (c == '}' || c == ']') --depth;
    }
    fail_at("the JSON array ends within a row");
  }
  /// Moves from an opening quote to the closing one.
  void skip_string() {
    const int64_t opened_on = line_;
    for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (text_[at_] == '\n') ++line_;
      if (text_[at_] == '\\') ++at_;
    }
    if (at_ >= text_.size()) {
      line_ = opened_on;
      fail_at("a string is not closed");
    }
  }
  [[noreturn]] void fail_at(std::string_view what) const {
    fail(ErrorKind::kData, "{}: line {}: {}", request_.path, line_, what);
  }

  std::string_view text_;
  size_t at_ = 0;
  int64_t line_ = 1;
  bool first_ = true;
  bool finished_ = false;
};

}  // namespace

std::string json_text(std::string_view text) { return json(text).dump(); }

Cell cell_of_json(const json& value) {
  if (value.is_null()) return {};
  if (value.is_string()) return {Cell::Kind::kText, value.get<std::string>(), {}};
  if (value.is_number_integer()) return {Cell::Kind::kInteger, value.dump(), {}, {}, {value.get<double>()}};
  if (value.is_array()) {
    Cell list = list_cell(value);
    list.numbers = numbers_of(value);
    return list;
  }
  Cell cell = other("an object");
  if (value.is_boolean()) {
    cell = other(fmt::format("the boolean {}", value.dump()));
    cell.label = value.dump();
  } else if (value.is_number_float()) {
    // Other programs write 1.0 for the class 1 when a column once had gaps.
    constexpr double kMostExactInteger = 0x1p53;
    const double number = value.get<double>();
    const bool whole = std::abs(number) <= kMostExactInteger && number == std::floor(number);
    cell = other(fmt::format("the fractional number {}", value.dump()));
    cell.numbers = {number};
    if (whole) cell.label = std::to_string(static_cast<int64_t>(number));
  }
  return cell;
}

std::unique_ptr<RowReader> open_json_lines(const ReaderRequest& request) {
  return std::make_unique<JsonLinesReader>(request);
}

std::unique_ptr<RowReader> open_json_array(const ReaderRequest& request) {
  return std::make_unique<JsonArrayReader>(request);
}

}  // namespace neoloom::data
