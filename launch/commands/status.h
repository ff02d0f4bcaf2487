// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launch/command_line.h"

namespace neoloom::launch {

/// `neoloom status`. Reads a run folder and changes nothing in it. Returns the exit code, which tells the state.
/// Throws: Error(kUsage) when the folder is not that of a run.
int run_status(const StatusArguments& arguments);

}  // namespace neoloom::launch
