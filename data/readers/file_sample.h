// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/options.h"
#include "data/readers/rows.h"

namespace neoloom::data {

/// The first rows of a file, and the options that read it.
struct FileSample {
  Options options;                     // train, format, header, quoting, delimiter, encoding; the rest untouched
  Format format = Format::kJsonLines;  // what options.format leads to
  std::map<std::string, std::string> reasons;  // why an option is not its default, by its key
  std::vector<std::string> columns;            // names; of text: "text"
  std::vector<std::string> repeated;           // names that stand more than once; they are not in `columns`
  std::vector<Row> rows;                       // readable ones, with a cell a column, each with its JSON
  int64_t unreadable = 0;                      // further rows among the first ones that cannot be read
  std::string first_problem;                   // of these: "line 7: reason"
  bool whole = false;                          // the file has no other rows
};

/// Guesses how the first of the files is read: format (by its name, else by its first bytes), encoding, delimiter,
/// quotes and header. Reads its first rows with these options, a few MiB and `most_rows` at most. Throws: Error(kData)
/// when nothing reads it: no such file, another format, no rows.
FileSample sample_file(const Files& files, int64_t most_rows);

}  // namespace neoloom::data
