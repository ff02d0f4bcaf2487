// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launch/command_line.h"

namespace neoloom::launch {

/// `neoloom report`. Reads run folders and writes one HTML file, whose path it prints. Returns the exit code.
/// Throws: Error(kUsage) for a folder that is not that of a run, and for several runs without --output; Error(kOutput).
int run_report(const ReportArguments& arguments);

/// Writes DIR/report.html of a run that ended. Returns why it was not written; else "".
std::string write_report_of(const std::string& run);

}  // namespace neoloom::launch
