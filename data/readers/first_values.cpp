// SPDX-License-Identifier: Apache-2.0
#include "data/readers/first_values.h"

#include "data/readers/input_text.h"
#include "runtime/core/error.h"

namespace neoloom::data {

std::vector<Cell> first_values(const Files& files, const Options& options, const std::vector<std::string>& columns) {
  constexpr int kRows = 100;
  const std::string path = files.expand().front();
  InputFile file(path, options.encoding);
  ReaderRequest request = reader_request(path, file.head(), options);
  std::vector<Cell> values(columns.size());
  if (request.format == Format::kText) return values;
  for (const std::string& name : columns) request.columns.push_back({name, "data", /*optional=*/true});
  try {
    const auto reader = open_rows(request);
    Row row;
    for (int i = 0; i < kRows && reader->next(row); ++i) {
      for (size_t k = 0; k < values.size(); ++k) {
        if (values[k].kind == Cell::Kind::kMissing) values[k] = row.cells[k];
      }
    }
  } catch (const core::Error&) {
    if (!file.converted()) throw;  // the head of a converted file may end within a row
  }
  return values;
}

}  // namespace neoloom::data
