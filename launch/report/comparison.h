// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "launch/report/run_record.h"

namespace neoloom::launch {

/// Returns groups of runs, by index: those of a group differ only by their seed (and output_dir). A run without a
/// config.yaml is alone. Groups are in the order of their first runs.
std::vector<std::vector<size_t>> groups_by_seed(const std::vector<RunRecord>& runs);

/// Mean and spread of some values; NaN does not count.
struct Spread {
  size_t count = 0;
  double mean = 0.0;       // NaN without values
  double deviation = 0.0;  // standard deviation of the sample, by count - 1; NaN below two values
  double least = 0.0;
  double greatest = 0.0;
};
Spread spread_of(const std::vector<double>& values);

/// What the runs have in common and what not, as HTML: a row for each run, the keys that differ, their curves in the
/// same charts, and mean and spread over seeds.
std::string comparison_sections(const std::vector<RunRecord>& runs);

}  // namespace neoloom::launch
