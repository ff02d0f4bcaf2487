// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/terminal.h"

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <string>

#include "runtime/core/environment.h"

namespace neoloom::core {
namespace {

size_t count_in_environment(Variable variable) {
  const std::string text = environment(variable);
  size_t count = 0;
  std::from_chars(text.data(), text.data() + text.size(), count);
  return count;
}

// Returns the width of the terminal behind mpirun, or 0 without one. Under mpirun stderr is a pipe, and
// cluster/local/mpirun.sh passes the width on.
size_t columns_behind_mpirun() {
  struct stat status {};
  if (::fstat(STDERR_FILENO, &status) != 0 || !S_ISFIFO(status.st_mode)) return 0;
  return count_in_environment("NEOLOOM_TERMINAL_COLUMNS");
}

}  // namespace

TerminalSize terminal_size(int descriptor) {
  TerminalSize size;
  winsize told{};
  const bool tells = ::ioctl(descriptor, TIOCGWINSZ, &told) == 0;
  if (const size_t columns = tells && told.ws_col > 0 ? told.ws_col : count_in_environment("COLUMNS"); columns > 0)
    size.columns = columns;
  if (const size_t rows = tells && told.ws_row > 0 ? told.ws_row : count_in_environment("LINES"); rows > 0)
    size.rows = rows;
  return size;
}

bool is_terminal(int descriptor) { return ::isatty(descriptor) == 1 && environment("TERM") != "dumb"; }

bool speaks_utf8() {
  const std::string locale = environment({"LC_ALL", "LC_CTYPE", "LANG"});
  return locale.find("UTF-8") != std::string::npos || locale.find("utf8") != std::string::npos;
}

bool wants_colours() { return environment("NO_COLOR").empty(); }

bool stderr_is_terminal() { return columns_behind_mpirun() > 0 || is_terminal(STDERR_FILENO); }

bool stderr_has_colours() { return stderr_is_terminal() && wants_colours(); }

size_t stderr_columns() {
  const size_t behind = columns_behind_mpirun();
  return behind > 0 ? behind : terminal_size(STDERR_FILENO).columns;
}

}  // namespace neoloom::core
