// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launch/assembly.h"

namespace neoloom::launch {

/// Reads the model's header and the data, prints what a run would do (counts, lengths, label histogram, steps, memory,
/// bytes per all-reduce) on standard output, and leaves nothing behind. Runs on rank 0. Returns "".
/// Throws: whatever the run itself would refuse of data and configuration.
std::string dry_run(const RunConfig& config, const TaskChoice& task, const Base& base, const data::Tokenizer& tokenizer,
                    int world_size);

}  // namespace neoloom::launch
