// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/terminal.h"

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>

#include "runtime/core/environment.h"

namespace neoloom::core {
namespace {

size_t columns_in_environment(Variable variable) {
  const std::string text = environment(variable);
  size_t columns = 0;
  std::from_chars(text.data(), text.data() + text.size(), columns);
  return columns;
}

// Returns the width of the terminal behind mpirun, or 0 without one. Under mpirun stderr is a pipe, and
// cluster/local/mpirun.sh passes the width on.
size_t columns_behind_mpirun() {
  struct stat status {};
  if (::fstat(STDERR_FILENO, &status) != 0 || !S_ISFIFO(status.st_mode)) return 0;
  return columns_in_environment("NEOLOOM_TERMINAL_COLUMNS");
}

}  // namespace

bool stderr_is_terminal() {
  return columns_behind_mpirun() > 0 || (::isatty(STDERR_FILENO) == 1 && environment("TERM") != "dumb");
}

bool stderr_has_colours() { return stderr_is_terminal() && environment("NO_COLOR").empty(); }

size_t stderr_columns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  for (const size_t columns : {columns_behind_mpirun(), columns_in_environment("COLUMNS")}) {
    if (columns > 0) return columns;
  }
  return 80;
}

}  // namespace neoloom::core
