// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "data/readers/rows.h"

namespace neoloom::data {

/// Reads the rows of a Parquet file. Row::line counts rows, from 1. Opens the file by its path.
/// Throws: Error(kData) as open_parquet_table, and for a requested column that the file lacks.
std::unique_ptr<RowReader> open_parquet(const ReaderRequest& request);

}  // namespace neoloom::data
