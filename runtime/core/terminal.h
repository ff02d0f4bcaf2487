// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace neoloom::core {

struct TerminalSize {
  size_t columns = 80;
  size_t rows = 24;
};

/// Returns what the terminal of a descriptor reports, else COLUMNS and LINES, else 80 x 24. Ask at every redraw,
/// because people resize windows.
TerminalSize terminal_size(int descriptor);

/// Whether a descriptor is a terminal whose cursor can be moved (TERM is not dumb).
bool is_terminal(int descriptor);

/// Whether the locale is one of UTF-8.
bool speaks_utf8();

/// False when NO_COLOR is set.
bool wants_colours();

/// Whether a person reads stderr on a terminal that can redraw lines: it is one, or it is a pipe and
/// NEOLOOM_TERMINAL_COLUMNS is set, as cluster/local/mpirun.sh does.
bool stderr_is_terminal();

/// The same, without NO_COLOR.
bool stderr_has_colours();

/// Columns of that terminal.
size_t stderr_columns();

}  // namespace neoloom::core
