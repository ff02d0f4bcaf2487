// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launch/report/run_record.h"

namespace neoloom::launch {

/// The sections of one run as HTML: summary, training, evaluation, speed, data, timeline, configuration. A section
/// whose data is missing says so. Anchors begin with `anchor`.
std::string run_sections(const RunRecord& run, const std::string& anchor);

}  // namespace neoloom::launch
