// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launch/report/chart.h"
#include "launch/report/run_record.h"

namespace neoloom::launch {

/// Charts of the metrics, all values, and for the last evaluation of each set the table of labels, the confusion matrix
/// and the calibration, as HTML.
std::string evaluation_section(const RunRecord& run);

/// One metric of a validation set over the steps.
Series metric_series(const ValidationRecord& set, const std::string& metric, const std::string& name);

/// The last finite value of a metric; NaN: there is none.
double last_value(const ValidationRecord& set, const std::string& metric);

/// "eval" of the set without a name, "eval NAME" of others.
std::string set_title(const ValidationRecord& set);

}  // namespace neoloom::launch
