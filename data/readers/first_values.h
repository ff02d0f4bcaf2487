// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "data/options.h"
#include "data/readers/rows.h"

namespace neoloom::data {

/// Returns the first value of each column within the first hundred rows of the first file; kMissing where there is none
/// or no such column. Serves to decide the roles of columns. Throws: Error(kData) when the file cannot be read as a
/// whole.
std::vector<Cell> first_values(const Files& files, const Options& options, const std::vector<std::string>& columns);

}  // namespace neoloom::data
