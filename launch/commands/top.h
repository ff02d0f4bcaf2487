// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launch/command_line.h"

namespace neoloom::launch {

/// `neoloom top`. On a terminal, a picture of a run that is drawn again every few seconds, until q or Ctrl-C; then 0.
/// Once: one picture, and the exit code of `status`. Reads a run folder and changes nothing in it. Call it on one rank.
/// Throws: Error(kUsage) once, when the folder is not that of a run.
int run_top(const TopArguments& arguments);

}  // namespace neoloom::launch
