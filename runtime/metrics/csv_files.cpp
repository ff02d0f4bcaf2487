// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/metrics/appended_file.h"
#include "runtime/metrics/event_sinks.h"
#include "runtime/metrics/events.h"

namespace neoloom::metrics {
namespace {

using nlohmann::ordered_json;

using Row = std::vector<std::pair<std::string, double>>;

/// Quotes a field where RFC 4180 asks for it.
std::string field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += c;
    quoted += c;
  }
  quoted += '"';
  return quoted;
}

/// One file: a header, and a row for each event. A cell without a value is empty.
class CsvFile {
 public:
  CsvFile(std::string path, std::string name) : path_(std::move(path)), name_(std::move(name)) {}

  void add_columns(const Row& row) {
    for (const auto& [key, value] : row) {
      if (std::find(columns_.begin(), columns_.end(), key) == columns_.end()) columns_.push_back(key);
    }
  }

  bool has_columns(const Row& row) const {
    return std::all_of(row.begin(), row.end(), [&](const auto& cell) {
      return std::find(columns_.begin(), columns_.end(), cell.first) != columns_.end();
    });
  }

  std::string line(const Row& row) const {
    std::string line;
    for (const std::string& column : columns_) {
      const auto cell = std::find_if(row.begin(), row.end(), [&](const auto& each) { return each.first == column; });
      if (&column != &columns_.front()) line += ',';
      if (cell != row.end() && std::isfinite(cell->second)) line += fmt::format("{}", cell->second);
    }
    return line + "\n";
  }

  /// Replaces the file by these rows, whose columns it has. Without a row there is no file.
  void rewrite(const std::vector<Row>& rows) {
    file_.reset();
    if (rows.empty()) {
      std::error_code problem;
      std::filesystem::remove(path_, problem);
      core::require(!problem, core::ErrorKind::kUsage, "cannot remove {}: {}", path_, problem.message());
      return;
    }
    std::string text;
    for (const std::string& column : columns_) {
      if (!text.empty()) text += ',';
      text += field(column);
    }
    text += "\n";
    for (const Row& row : rows) text += line(row);
    core::publish_file(path_, text, core::ErrorKind::kUsage);
  }

  void append(const Row& row) {
    if (!file_) file_.emplace(path_, name_, /*lines=*/true);
    file_->append(line(row));
  }

 private:
  std::string path_, name_;
  std::vector<std::string> columns_;
  std::optional<AppendedFile> file_;
};

class CsvFiles : public EventSink {
 public:
  explicit CsvFiles(const SinkSetup& setup)
      : log_(setup.output_dir + "/metrics.jsonl"),
        train_(setup.output_dir + "/train.csv", "train.csv"),
        eval_(setup.output_dir + "/eval.csv", "eval.csv") {
    rewrite(setup.first_step == 0 ? -1 : setup.first_step);
  }

  void take(const ordered_json& event) override {
    CsvFile* const file = file_of(event);
    if (file == nullptr) return;
    const Row row = numbers_of(event);
    // New columns need a new header. metrics.jsonl has this event, too.
    if (file->has_columns(row)) {
      file->append(row);
    } else {
      rewrite(std::nullopt);
    }
  }

 private:
  CsvFile* file_of(const ordered_json& event) {
    const std::string kind = event.value("event", "");
    return kind == "train" ? &train_ : kind == "eval" ? &eval_ : nullptr;
  }

  /// Writes both files anew from metrics.jsonl, up to this step.
  void rewrite(std::optional<int64_t> last_step) {
    std::vector<std::pair<CsvFile*, Row>> kept;
    const auto forget_beyond = [&](int64_t step) {
      std::erase_if(kept, [&](const auto& line) {
        const auto found =
            std::find_if(line.second.begin(), line.second.end(), [](const auto& cell) { return cell.first == "step"; });
        return found != line.second.end() && found->second > static_cast<double>(step);
      });
    };
    LostSteps lost;
    read_events(log_, [&](const ordered_json& event) {
      if (const auto step = lost.before(event)) forget_beyond(*step);
      if (CsvFile* const file = file_of(event)) kept.emplace_back(file, numbers_of(event));
    });
    if (last_step) forget_beyond(*last_step);
    for (CsvFile* const file : {&train_, &eval_}) {
      std::vector<Row> rows;
      for (const auto& [owner, row] : kept) {
        if (owner == file) rows.push_back(row);
      }
      for (const Row& row : rows) file->add_columns(row);
      file->rewrite(rows);
    }
  }

  std::string log_;
  CsvFile train_, eval_;
};

}  // namespace

std::unique_ptr<EventSink> make_csv(const SinkSetup& setup) { return std::make_unique<CsvFiles>(setup); }

}  // namespace neoloom::metrics
