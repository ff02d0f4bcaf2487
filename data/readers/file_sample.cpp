// SPDX-License-Identifier: Apache-2.0
#include "data/readers/file_sample.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>

#include "data/readers/input_text.h"
#include "runtime/core/error.h"
#include "runtime/core/utf8.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;

constexpr size_t kSampledBytes = size_t{4} << 20;  // InputFile::head has as many of a converted file
constexpr int64_t kTriedRows = 1000;               // with each delimiter

bool is_csv(Format format) { return format == Format::kCsv || format == Format::kTsv; }

/// Cuts what may have been cut within a row.
std::string_view whole_lines(std::string_view text) {
  if (text.size() < kSampledBytes) return text;
  return text.substr(0, text.find_last_of("\r\n", kSampledBytes) + 1);
}

/// Returns the encoding of a text that is not UTF-8.
std::string guess_encoding(std::string_view text, std::string& reason) {
  const std::string lossy = core::utf8_lossy(text);
  int64_t damaged = 0, sound = 0;
  for (size_t at = lossy.find('\xEF'); at != std::string::npos; at = lossy.find("\xEF\xBF\xBD", at + 1)) {
    damaged += lossy.compare(at, 3, "\xEF\xBF\xBD") == 0 ? 1 : 0;
  }
  for (const char c : lossy) sound += static_cast<unsigned char>(c) >= 0xC2 ? 1 : 0;
  sound -= damaged;
  const auto first = static_cast<unsigned char>(text[core::utf8_prefix_bytes(text)]);
  if (sound > 10 * damaged) {
    reason = fmt::format("{} characters are UTF-8 and {} bytes are not (the first: 0x{:02X})", sound, damaged, first);
    return "utf-8-replace";
  }
  // Windows' code page has letters where Latin-1 has control characters, but not for these five bytes.
  bool windows = false, impossible = false;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    windows = windows || (byte >= 0x80 && byte < 0xA0);
    impossible = impossible || byte == 0x81 || byte == 0x8D || byte == 0x8F || byte == 0x90 || byte == 0x9D;
  }
  reason = fmt::format("the byte 0x{:02X} is not UTF-8{}", first,
                       windows && !impossible ? ", and bytes from 0x80 to 0x9F are letters of cp1252" : "");
  return windows && !impossible ? "cp1252" : "latin-1";
}

/// Names the format of a file whose name does not.
std::string guess_format(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '{') return "jsonl";
  if (first != std::string_view::npos && text[first] == '[') return "json";
  const std::string_view line = text.substr(0, text.find_first_of("\r\n"));
  return line.find_first_of("\t;,|") == std::string_view::npos ? "text" : "csv";
}

/// How a delimiter reads the first records of a CSV file.
struct Trial {
  char delimiter = ',';
  bool quoting = true;
  size_t columns = 0;
  int64_t good = 0, bad = 0;  // records with and without that number of fields
  double share() const { return good == 0 ? 0.0 : static_cast<double>(good) / static_cast<double>(good + bad); }
  /// Whether it reads more than one column, and then more of the records.
  bool better_than(const Trial& other) const {
    const bool several = columns > 1;
    if (several != (other.columns > 1)) return several;
    return share() > other.share() + 0.01 || (share() >= other.share() && columns > other.columns);
  }
};

Trial try_reading(ReaderRequest request, char delimiter, bool quoting) {
  request.delimiter = delimiter;
  request.quoting = quoting;
  Trial trial{delimiter, quoting};
  try {
    const auto reader = open_rows(request);
    trial.columns = reader->columns_found().size();
    Row row;
    for (int64_t i = 0; i < kTriedRows && reader->next(row); ++i) ++(row.error.empty() ? trial.good : trial.bad);
  } catch (const core::Error&) {  // a quote that is never closed
    trial.good = 0;
  }
  return trial;
}

void guess_delimiter(const ReaderRequest& request, FileSample& sample) {
  const char usual = sample.format == Format::kTsv ? '\t' : ',';
  const Trial named = try_reading(request, usual, true);
  Trial best = named;
  for (const char delimiter : {usual, ',', ';', '\t', '|'}) {
    for (const bool quoting : {true, false}) {
      const Trial trial = try_reading(request, delimiter, quoting);
      if (trial.better_than(best)) best = trial;
    }
  }
  if (best.delimiter != usual) {
    sample.options.delimiter = std::string(1, best.delimiter);
    sample.reasons["delimiter"] =
        fmt::format("{} columns, with a {} {}", best.columns, usual == '\t' ? "tab" : "comma", named.columns);
  }
  const Trial quoted = try_reading(request, best.delimiter, true);
  const Trial plain = try_reading(request, best.delimiter, false);
  if (quoted.good > 0 && (plain.columns != quoted.columns || plain.bad >= quoted.bad)) return;
  sample.options.quoting = false;
  sample.reasons["quoting"] = "quotes are not in pairs around fields, so they are text";
}

bool is_number(const std::string& text) {
  double value = 0.0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return !text.empty() && code == std::errc() && end == text.data() + text.size();
}

/// Whether these are "0", "1", ...: what other programs name columns without a name.
bool are_positions(const std::vector<std::string>& names) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] != std::to_string(i)) return false;
  }
  return true;
}

/// Leaves out names that are empty or not unique, which no key can name.
std::vector<std::string> nameable(const std::vector<std::string>& names) {
  std::vector<std::string> out;
  std::copy_if(names.begin(), names.end(), std::back_inserter(out), [&](const std::string& name) {
    return !name.empty() && std::count(names.begin(), names.end(), name) == 1;
  });
  return out;
}

/// Returns the names that are not unique, each once.
std::vector<std::string> repeated(const std::vector<std::string>& names) {
  std::vector<std::string> out;
  for (const std::string& name : names) {
    const bool again = std::count(names.begin(), names.end(), name) > 1;
    if (!name.empty() && again && std::count(out.begin(), out.end(), name) == 0) out.push_back(name);
  }
  return out;
}

std::vector<Column> optional_columns(const std::vector<std::string>& names) {
  std::vector<Column> columns;
  columns.reserve(names.size());
  for (const std::string& name : names) columns.push_back({name, "data", /*optional=*/true});
  return columns;
}

/// Says why the first record is no header; empty when it may be one.
std::string no_header(ReaderRequest request) {
  const std::vector<std::string> all = open_rows(request)->columns_found();
  const std::vector<std::string> names = nameable(all);
  if (are_positions(all)) return "";
  for (const std::string& name : names) {
    constexpr size_t kLongestName = 64;
    if (is_number(name)) return fmt::format("its field \"{}\" is a number", name);
    if (name.size() > kLongestName) return "one of its fields is as long as a text";
  }
  request.columns = optional_columns(names);
  const auto rows = open_rows(request);
  std::vector<int64_t> repeats(names.size(), 0);
  Row row;
  for (int64_t i = 0; i < kTriedRows && rows->next(row); ++i) {
    for (size_t k = 0; k < names.size() && row.error.empty(); ++k) {
      if (row.cells[k].text == names[k] && ++repeats[k] > 1)
        return fmt::format("its field \"{}\" is a value of other rows, too", names[k]);
    }
  }
  return "";
}

/// Reads the rows with all columns. A file that was cut at kSampledBytes may end within a row.
void read_rows(ReaderRequest request, int64_t most_rows, bool cut, FileSample& sample) {
  if (request.format == Format::kText) {
    sample.columns = {"text"};
  } else {
    const auto reader = open_rows(request);
    Row row;
    while (reader->columns_found().empty() && reader->next(row)) {
    }
    sample.columns = nameable(reader->columns_found());
    sample.repeated = repeated(reader->columns_found());
  }
  // The first object may lack a column that Alpaca's rows need not have.
  const auto has = [&](const char* name) {
    return std::find(sample.columns.begin(), sample.columns.end(), name) != sample.columns.end();
  };
  if (has("instruction") && !has("input") && !is_csv(request.format) && request.format != Format::kText)
    sample.columns.emplace_back("input");
  request.columns = optional_columns(sample.columns);
  request.as_json = true;
  const auto reader = open_rows(request);
  Row row;
  const auto next = [&] {
    try {
      return reader->next(row);
    } catch (const core::Error&) {
      if (!cut) throw;
      return false;
    }
  };
  while (static_cast<int64_t>(sample.rows.size()) + sample.unreadable < most_rows) {
    if (!next()) {
      sample.whole = !cut;
      return;
    }
    if (row.error.empty()) {
      sample.rows.push_back(row);
    } else if (sample.unreadable++ == 0) {
      sample.first_problem = fmt::format("line {}: {}", row.line, row.error);
    }
  }
}

}  // namespace

FileSample sample_file(const Files& files, int64_t most_rows) {
  FileSample sample;
  sample.options.train = files;
  const std::string path = files.expand().front();
  InputFile raw(path, "utf-8");
  std::string_view text = raw.head();
  const bool parquet = text.starts_with(kParquetMagic);
  if (!parquet) {
    require_text(path, text);
    const std::string_view looked_at = whole_lines(text);
    if (core::utf8_prefix_bytes(looked_at) != looked_at.size())
      sample.options.encoding = guess_encoding(looked_at, sample.reasons["encoding"]);
    if (!names_a_format(path)) {
      sample.options.format = guess_format(text);
      sample.reasons["format"] = fmt::format("its first bytes, as the name {} does not say", path);
    }
  }
  InputFile file(path, sample.options.encoding);
  text = file.head();
  const bool cut = file.converted() && text.size() >= kSampledBytes;
  sample.format = format_of(path, sample.options, text);
  if (cut && sample.format != Format::kJsonArray) text = whole_lines(text);
  if (is_csv(sample.format)) {
    guess_delimiter(reader_request(path, text, sample.options), sample);
    const std::string reason = no_header(reader_request(path, text, sample.options));
    if (!reason.empty()) {
      sample.options.header = false;
      sample.reasons["header"] = "the first row names no columns: " + reason;
    }
  }
  read_rows(reader_request(path, text, sample.options), most_rows, cut, sample);
  core::require(!sample.rows.empty(), ErrorKind::kData, "{}: {}", path,
                sample.unreadable == 0 ? "there are no rows in it"
                                       : fmt::format("none of its first {} rows can be read; {}", sample.unreadable,
                                                     sample.first_problem));
  return sample;
}

}  // namespace neoloom::data
