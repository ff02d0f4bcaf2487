// SPDX-License-Identifier: Apache-2.0
#include "data/readers/rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <utility>

#include "data/readers/csv_reader.h"
#include "data/readers/decompress.h"
#include "data/readers/json_reader.h"
#include "data/readers/lines.h"
#include "data/readers/parquet_reader.h"
#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using core::fail;
using core::require;

struct NamedFormat {
  std::string_view name;  // value of data.format, and extension of a file
  Format format;
};
constexpr std::array<NamedFormat, 10> kFormats = {{{"jsonl", Format::kJsonLines},
                                                   {"ndjson", Format::kJsonLines},
                                                   {"json", Format::kJsonArray},
                                                   {"csv", Format::kCsv},
                                                   {"tsv", Format::kTsv},
                                                   {"tab", Format::kTsv},
                                                   {"txt", Format::kText},
                                                   {"text", Format::kText},
                                                   {"parquet", Format::kParquet},
                                                   {"pq", Format::kParquet}}};

const NamedFormat* find_format(std::string_view name) {
  return std::find_if(kFormats.begin(), kFormats.end(), [&](const auto& each) { return each.name == name; });
}

std::string last_extension(const std::filesystem::path& path) {
  std::string name = path.extension().string();
  if (!name.empty()) name.erase(0, 1);
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  return name;
}

bool starts_with_bracket(std::string_view text) {
  text = without_byte_order_mark(text);
  const size_t first = text.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && text[first] == '[';
}

/// Reads one row per line. The first wanted column is the line, others are absent.
class TextLineReader : public RowReader {
 public:
  explicit TextLineReader(const ReaderRequest& request)
      : request_(request), lines_(without_byte_order_mark(request.text)) {
    for (const Column& column : request.columns) {
      if (&column != &request.columns.front() && !column.optional) {
        fail_without_column(request.path, column, columns_);
      }
    }
  }
  bool next(Row& row) override {
    std::string_view line;
    if (!lines_.next(line)) return false;
    row.line = lines_.number();
    row.error = encoding_complaint(line);
    row.cells.assign(request_.columns.size(), Cell{});
    if (row.error.empty()) row.cells.front() = {Cell::Kind::kText, std::string(line), {}};
    if (row.error.empty() && request_.as_json) row.cells.front().json = json_text(line);
    return true;
  }
  const std::vector<std::string>& columns_found() const override { return columns_; }
  double share_read() const override { return lines_.share_read(); }

 private:
  ReaderRequest request_;
  Lines lines_;
  std::vector<std::string> columns_;
};

}  // namespace

std::string format_extension(const std::string& path) {
  const std::string name = last_extension(path);
  return name == "gz" || name == "zst" ? last_extension(std::filesystem::path(path).stem()) : name;
}

bool names_a_format(const std::string& path) { return find_format(format_extension(path)) != kFormats.end(); }

std::string encoding_complaint(std::string_view text) {
  const std::string complaint = core::utf8_complaint(text);
  if (complaint.empty()) return {};
  const bool windows = complaint.find("CP1252") != std::string::npos;
  return fmt::format("{}, or data.encoding: {} (utf-8-replace reads the rest)", complaint,
                     windows ? "cp1252" : "latin-1");
}

ReaderRequest reader_request(const std::string& path, std::string_view text, const Options& options) {
  ReaderRequest request{path, text, format_of(path, options, text), options.header, options.quoting};
  if (!options.delimiter.empty()) request.delimiter = options.delimiter.front();
  return request;
}

Format format_of(const std::string& path, const Options& options, std::string_view text) {
  const bool by_name = options.format == "auto";
  if (by_name && text.starts_with(kParquetMagic)) return Format::kParquet;
  const std::string name = by_name ? format_extension(path) : options.format;
  const auto* const found = find_format(name);
  if (found == kFormats.end()) {
    fail(ErrorKind::kData,
         "{}: the format {} is not supported; expected a file that ends in .jsonl .ndjson .json .csv .tsv .tab .txt "
         ".text (with .gz or .zst behind it, too) .parquet .pq, or data.format jsonl, json, csv, tsv, text or parquet",
         path, core::quoted(name));
  }
  require(found->format != Format::kParquet || text.starts_with(kParquetMagic), ErrorKind::kData,
          "{} is no Parquet file: expected that it starts with PAR1, found {}", path, core::quoted(text.substr(0, 4)));
  if (found->format == Format::kJsonArray && !starts_with_bracket(text)) return Format::kJsonLines;
  return found->format;
}

void require_text(const std::string& path, std::string_view text) {
  const auto zero = [&](size_t at) { return at < text.size() && text[at] == '\0'; };
  const char* utf16 = nullptr;
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF")) {
    utf16 = "UTF-16";  // iconv reads the byte order mark
  } else if (zero(1) && zero(3) && !zero(0)) {
    utf16 = "UTF-16LE";
  } else if (zero(0) && zero(2) && !zero(1)) {
    utf16 = "UTF-16BE";
  }
  if (utf16 != nullptr) {
    fail(ErrorKind::kData, "{0} is {1}, not UTF-8 (byte 1 is 0x{2:02X}); convert it: iconv -f {1} -t UTF-8", path,
         utf16, static_cast<unsigned char>(text[0]));
  }
  constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kOthers = {
      {{"PK\x03\x04", "a ZIP archive"},
       {kParquetMagic, "a Parquet file"},
       {"BZh", "a bzip2 file"},
       {"\xFD"
        "7zXZ",
        "an xz file"},
       {"\x1F\x8B", "a gzip file"},
       {"\x28\xB5\x2F\xFD", "a zstd file"}}};
  for (const auto& [magic, what] : kOthers) {
    require(!text.starts_with(magic), ErrorKind::kData,
            "{} is {}{}; expected JSON lines, CSV, TSV or text, as it is or compressed by gzip or zstd, or Parquet",
            path, what, compression_of(text) == Compression::kNone ? "" : " within a compressed file");
  }
}

std::unique_ptr<RowReader> open_rows(const ReaderRequest& request) {
  switch (request.format) {
    case Format::kJsonLines:
      return open_json_lines(request);
    case Format::kJsonArray:
      return open_json_array(request);
    case Format::kCsv:
    case Format::kTsv:
      return open_csv(request);
    case Format::kParquet:
      return open_parquet(request);
    case Format::kText:
      break;
  }
  return std::make_unique<TextLineReader>(request);
}

namespace {

/// Says which keys take a file of prompts or chats; empty: it looks like neither.
std::string advice_on_columns(const std::vector<std::string>& found) {
  constexpr std::pair<std::string_view, std::string_view> kPairs[] = {
      {"prompt", "response"},      {"prompt", "completion"}, {"prompt", "answer"},
      {"instruction", "response"}, {"question", "answer"},   {"input", "output"}};
  const auto has = [&](std::string_view name) { return std::find(found.begin(), found.end(), name) != found.end(); };
  if (has("instruction") && has("output")) return "for prompts and responses set data.template: alpaca";
  for (const auto& [prompt, response] : kPairs) {
    if (!has(prompt) || !has(response)) continue;
    return fmt::format("for prompts and responses set data.prompt_column: {} and data.response_column: {}", prompt,
                       response);
  }
  for (const std::string_view chats : {"messages", "conversations", "conversation"}) {
    if (has(chats)) return fmt::format("for chats set data.messages_column: {}", chats);
  }
  return "";
}

}  // namespace

void fail_without_column(const std::string& path, const Column& column, const std::vector<std::string>& found,
                         const std::string& suspicion) {
  std::string advice = suspicion;
  if (advice.empty()) {
    const std::string near = core::nearest(column.name, found);
    advice = fmt::format("{}name the right one with {}",
                         near.empty() ? "" : fmt::format("did you mean {}? ", core::quoted(near)), column.key);
    const std::string other = column.key == "data.text_column" ? advice_on_columns(found) : "";
    if (!other.empty()) {
      advice = fmt::format("{} (neoloom init {} writes a configuration for it), or {}", other, path, advice);
    }
  }
  fail(ErrorKind::kData, "{}: no column {} ({}); {}; {}", path, core::quoted(column.name), column.key,
       found.empty() ? "it has no named columns" : "its columns are: " + core::quoted_list(found), advice);
}

}  // namespace neoloom::data
