// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace neoloom::launch {

/// `neoloom checkpoint list DIR | inspect FILE | verify FILE`. Prints to standard output.
/// `list` takes a checkpoint folder or the run folder that holds it. Returns the exit code 0.
/// Throws: Error(kUsage) for an unknown verb or a path that does not exist, Error(kCheckpoint) from inspect and verify
/// for a checkpoint that cannot be used.
int run_checkpoint(const std::string& verb, const std::string& path);

}  // namespace neoloom::launch
