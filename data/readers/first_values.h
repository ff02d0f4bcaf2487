// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "data/options.h"
#include "data/readers/rows.h"

namespace neoloom::data {

/// Of each named column the first value among the first hundred rows; kMissing where the file has no such column or
/// nothing in it there. For looking at a file before the roles of its columns are decided.
/// Throws: Error(kData) when the file cannot be read as a whole.
std::vector<Cell> first_values(const std::string& path, const Options& options,
                               const std::vector<std::string>& columns);

}  // namespace neoloom::data
