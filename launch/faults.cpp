// SPDX-License-Identifier: Apache-2.0
#include "launch/faults.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "runtime/core/error.h"

namespace neoloom::launch {

std::function<void(int64_t, int64_t)> fault_from_environment(int rank) {
  const char* text = std::getenv("NEOLOOM_FAULT");
  if (text == nullptr || *text == '\0') return {};
  char kind[8] = {};
  int who = 0;
  long long first_step = 0, min_rows = 1;
  const int fields = std::sscanf(text, "%7[a-z]:rank=%d:step=%lld:rows=%lld", kind, &who, &first_step, &min_rows);
  const bool kills = std::strcmp(kind, "kill") == 0;
  core::require(fields >= 3 && (kills || std::strcmp(kind, "oom") == 0), core::ErrorKind::kUsage,
                "NEOLOOM_FAULT: expected kill:rank=R:step=S or oom:rank=R:step=S:rows=N, found {}", text);
  if (who != -1 && who != rank) return {};
  return [=](int64_t step, int64_t rows) {
    if (kills && step == first_step) std::raise(SIGKILL);
    if (!kills && step >= first_step && rows >= min_rows) throw std::bad_alloc();
  };
}

}  // namespace neoloom::launch
