// SPDX-License-Identifier: Apache-2.0
#include "data/readers/parquet_reader.h"

#include <dlfcn.h>

#include <algorithm>
#include <optional>

#include "data/readers/json_reader.h"
#include "data/readers/parquet_plugin.h"
#include "runtime/core/error.h"
#include "runtime/core/process.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using nlohmann::json;

std::string plugin_path() { return (core::program_folder() / "libneoloom_parquet.so").string(); }

template <typename Function>
Function* symbol(void* library, const char* name) {
  void* address = dlsym(library, name);
  core::require(address != nullptr, ErrorKind::kData, "{} is not neoloom's plug-in for Parquet: it has no {}",
                plugin_path(), name);
  return reinterpret_cast<Function*>(address);
}

/// Returns why a cell is no text that can be used; empty: it is.
std::string complaint_about(const Cell& cell) {
  std::string complaint = encoding_complaint(cell.text);
  for (const std::string& item : cell.items) {
    if (complaint.empty()) complaint = encoding_complaint(item);
  }
  return complaint;
}

/// Texts within a struct may hold bytes that are not UTF-8.
std::string dumped(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

class ParquetReader : public RowReader {
 public:
  explicit ParquetReader(const ReaderRequest& request)
      : table_(open_parquet_table(request.path)), cells_(request.columns.size()), as_json_(request.as_json) {
    std::vector<std::string> chosen;
    for (const Column& column : request.columns) {
      const bool there = std::count(columns_found().begin(), columns_found().end(), column.name) > 0;
      if (!there && !column.optional) fail_without_column(request.path, column, columns_found());
      places_.push_back(there ? std::optional(chosen.size()) : std::nullopt);
      if (there) chosen.push_back(column.name);
    }
    table_->choose(chosen);
  }
  bool next(Row& row) override {
    if (!table_->next(values_)) return false;
    row.line = ++rows_;
    row.error.clear();
    row.cells.assign(cells_, Cell{});
    for (size_t i = 0; i < cells_; ++i) {
      if (!places_[i]) continue;
      const json& value = values_[*places_[i]];
      row.cells[i] = cell_of_json(value);
      if (row.error.empty()) row.error = complaint_about(row.cells[i]);
      if (as_json_ && row.error.empty()) row.cells[i].json = dumped(value);
    }
    return true;
  }
  const std::vector<std::string>& columns_found() const override { return table_->columns(); }
  double share_read() const override { return static_cast<double>(rows_) / static_cast<double>(table_->rows()); }

 private:
  std::unique_ptr<ParquetTable> table_;
  size_t cells_;
  bool as_json_;
  std::vector<std::optional<size_t>> places_;  // of each wanted column in values_
  std::vector<json> values_;
  int64_t rows_ = 0;
};

}  // namespace

std::unique_ptr<ParquetTable> open_parquet_table(const std::string& path) {
  // RTLD_NODELETE: Arrow has static objects that do not survive an unloading.
  void* library = dlopen(plugin_path().c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    const char* reason = dlerror();
    core::fail(ErrorKind::kData,
               "{} is a Parquet file, but this build cannot read these ({}). Install Arrow by "
               "bash cluster/bootstrap/bootstrap.sh and build again, or convert the file to JSON lines",
               path, reason != nullptr ? reason : "unknown reason");
  }
  const int interface = symbol<int()>(library, "neoloom_parquet_interface")();
  core::require(interface == kParquetInterface, ErrorKind::kData,
                "{} belongs to another build of neoloom (interface {}, expected {}). Build again", plugin_path(),
                interface, kParquetInterface);
  return std::unique_ptr<ParquetTable>(
      symbol<ParquetTable*(const char*)>(library, "neoloom_open_parquet")(path.c_str()));
}

std::unique_ptr<RowReader> open_parquet(const ReaderRequest& request) {
  return std::make_unique<ParquetReader>(request);
}

}  // namespace neoloom::data
