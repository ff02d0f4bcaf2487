// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
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

  bool has_columns(const Row& row) const {
    return std::all_of(row.begin(), row.end(), [&](const auto& cell) { return position_of(cell.first).has_value(); });
  }

  /// Adds a row to those that rewrite() writes.
  void keep(const Row& row) {
    for (const auto& [key, value] : row) {
      if (!position_of(key)) columns_.push_back(key);
    }
    kept_.push_back(cells_of(row));
  }

  void forget_beyond(int64_t step) {
    const auto column = position_of("step");
    if (!column) return;
    std::erase_if(kept_, [&](const Cells& cells) {
      return *column < cells.size() && cells[*column] > static_cast<double>(step);  // false for a row without a step
    });
  }

  /// Replaces the file by the kept rows. Without a row there is no file.
  void rewrite() {
    file_.reset();
    if (kept_.empty()) {
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
    for (const Cells& cells : kept_) text += line(cells);
    kept_ = {};
    core::publish_file(path_, text, core::ErrorKind::kUsage);
  }

  void append(const Row& row) {
    if (!file_) file_.emplace(path_, name_, /*lines=*/true);
    file_->append(line(cells_of(row)));
  }

 private:
  using Cells = std::vector<double>;  // of the first columns; NaN: empty. A long run has a million of them.

  std::optional<size_t> position_of(const std::string& column) const {
    const auto found = std::find(columns_.begin(), columns_.end(), column);
    return found == columns_.end() ? std::nullopt : std::optional<size_t>(found - columns_.begin());
  }

  Cells cells_of(const Row& row) const {
    Cells cells(columns_.size(), std::numeric_limits<double>::quiet_NaN());
    for (const auto& [key, value] : row) cells[*position_of(key)] = value;
    return cells;
  }

  std::string line(const Cells& cells) const {
    std::string line;
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (i > 0) line += ',';
      if (i < cells.size() && std::isfinite(cells[i])) line += fmt::format("{}", cells[i]);
    }
    return line + "\n";
  }

  std::string path_, name_;
  std::vector<std::string> columns_;
  std::vector<Cells> kept_;
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
    const auto forget_beyond = [&](int64_t step) {
      train_.forget_beyond(step);
      eval_.forget_beyond(step);
    };
    LostSteps lost;
    read_events(log_, [&](const ordered_json& event) {
      if (const auto step = lost.before(event)) forget_beyond(*step);
      if (CsvFile* const file = file_of(event)) file->keep(numbers_of(event));
    });
    if (last_step) forget_beyond(*last_step);
    train_.rewrite();
    eval_.rewrite();
  }

  std::string log_;
  CsvFile train_, eval_;
};

}  // namespace

std::unique_ptr<EventSink> make_csv(const SinkSetup& setup) { return std::make_unique<CsvFiles>(setup); }

}  // namespace neoloom::metrics
