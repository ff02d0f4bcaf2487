// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace neoloom::core {

/// Whether a person reads stderr on a terminal that can redraw lines: it is one and TERM is not dumb, or it is a pipe
/// and NEOLOOM_TERMINAL_COLUMNS is set, as cluster/local/mpirun.sh does.
bool stderr_is_terminal();

/// The same, without NO_COLOR.
bool stderr_has_colours();

/// Columns of that terminal. Is asked at every redraw, because people resize windows.
size_t stderr_columns();

}  // namespace neoloom::core
