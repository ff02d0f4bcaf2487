// SPDX-License-Identifier: Apache-2.0
#include "data/kept_columns.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "data/readers/input_text.h"
#include "data/readers/rows.h"
#include "runtime/core/error.h"

namespace neoloom::data {
namespace {

constexpr int kRowsLookedAt = 100;

/// Throws for a column that neither the header nor any of the first rows has.
void require_columns(const std::string& path, RowReader& reader, const std::vector<Column>& columns) {
  std::vector<bool> seen(columns.size(), false);
  Row row;
  for (int i = 0; i < kRowsLookedAt && reader.next(row); ++i) {
    for (size_t k = 0; k < seen.size(); ++k) seen[k] = seen[k] || row.cells[k].kind != Cell::Kind::kMissing;
  }
  const std::vector<std::string>& found = reader.columns_found();
  for (size_t k = 0; k < seen.size(); ++k) {
    const bool named = std::find(found.begin(), found.end(), columns[k].name) != found.end();
    if (!seen[k] && !named) fail_without_column(path, columns[k], found);
  }
}

}  // namespace

class KeptColumns::Source {
 public:
  Source(const Files& files, Options options, const std::vector<std::string>& names, std::string directory,
         const std::string& option)
      : paths_(files.expand()), options_(std::move(options)), directory_(std::move(directory)) {
    for (const std::string& name : names) columns_.push_back({name, option});
    open_next();
    require_columns(paths_.front(), *reader_, columns_);
    next_path_ = 0;
    open_next();
  }

  void next(std::vector<std::string>& values) {
    while (!reader_->next(row_)) open_next();
    values.clear();
    for (const Cell& cell : row_.cells) {
      values.push_back(row_.error.empty() && !cell.json.empty() ? cell.json : "null");
    }
  }

 private:
  void open_next() {
    core::require(next_path_ < paths_.size(), core::ErrorKind::kData,
                  "{} has fewer rows than before: another program has changed it meanwhile", paths_.back());
    const std::string& path = paths_[next_path_++];
    reader_.reset();
    file_.emplace(path, options_.encoding);
    ReaderRequest request = reader_request(path, file_->text(directory_), options_);
    request.columns = columns_;
    request.as_json = true;
    reader_ = open_rows(request);
  }

  std::vector<std::string> paths_;
  Options options_;
  std::string directory_;
  std::vector<Column> columns_;
  size_t next_path_ = 0;
  std::optional<InputFile> file_;  // outlives the reader
  std::unique_ptr<RowReader> reader_;
  Row row_;
};

KeptColumns::KeptColumns(const Files& files, const Options& options, const std::vector<std::string>& columns,
                         const std::string& directory, const std::string& option)
    : source_(std::make_unique<Source>(files, options, columns, directory, option)) {}

KeptColumns::~KeptColumns() = default;

void KeptColumns::next(std::vector<std::string>& values) { source_->next(values); }

}  // namespace neoloom::data
