// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/options.h"

namespace neoloom::data {

/// Reads some columns of the input files again, row by row, to stand beside the results of these rows. The rows are the
/// samples of a store with StoreRequest::every_row. Memory does not grow with the files.
class KeptColumns {
 public:
  /// `directory`: where a compressed file is unpacked to. `option`: for messages, what names the columns.
  /// Throws: Error(kData) for a column that the first file lacks (JSON: the first hundred rows of it), listing those
  /// found.
  KeptColumns(const Files& files, const Options& options, const std::vector<std::string>& columns,
              const std::string& directory, const std::string& option);
  ~KeptColumns();

  /// Overwrites `values` with those of the next row, as JSON, in the order of the columns. null where the row has none
  /// or cannot be read. Throws: Error(kData) when there are no more rows.
  void next(std::vector<std::string>& values);

 private:
  class Source;
  std::unique_ptr<Source> source_;
};

}  // namespace neoloom::data
