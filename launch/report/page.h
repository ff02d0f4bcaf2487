// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "launch/report/run_record.h"

namespace neoloom::launch {

/// Returns a report of these runs as one HTML file, which is well-formed XML, too: it loads nothing, runs no script and
/// fits light and dark screens of any width. Several runs are compared first, then each has its own part.
std::string report_page(const std::vector<RunRecord>& runs);

}  // namespace neoloom::launch
