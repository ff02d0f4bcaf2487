// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/clock.h"

#include <unistd.h>

#include <string>

#include "runtime/core/proc.h"

namespace neoloom::core {

double process_age_seconds() {
  const std::string uptime = first_line("/proc/uptime");
  const std::optional<ProcessStat> stat = process_stat(::getpid());
  if (uptime.empty() || !stat) return 0.0;
  return std::atof(uptime.c_str()) -
         static_cast<double>(stat->start_ticks) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace neoloom::core
