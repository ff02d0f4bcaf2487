// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/clock.h"

#include <unistd.h>

#include <fstream>
#include <string>

namespace neoloom::core {

double process_age_seconds() {
  std::ifstream stat("/proc/self/stat"), uptime("/proc/uptime");
  std::string line;
  double up_seconds = 0.0;
  if (!std::getline(stat, line) || !(uptime >> up_seconds)) return 0.0;
  // Fields after the command's name, which may hold spaces: the 20th of them is the start in clock ticks since boot.
  size_t position = line.rfind(')');
  for (int field = 0; field < 20 && position != std::string::npos; ++field) position = line.find(' ', position + 1);
  if (position == std::string::npos) return 0.0;
  return up_seconds - std::stod(line.substr(position)) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace neoloom::core
