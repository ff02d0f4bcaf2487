// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launch/report/run_record.h"

namespace neoloom::launch {

/// The rows of predictions.jsonl in the run folder that are labelled wrongly with the largest scores, as HTML; or how
/// to write this file: predict does, with the true label under the key `truth`.
std::string mistakes_section(const RunRecord& run);

}  // namespace neoloom::launch
