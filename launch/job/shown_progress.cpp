// SPDX-License-Identifier: Apache-2.0
#include "launch/job/shown_progress.h"

#include <memory>

#include "runtime/core/clock.h"
#include "runtime/metrics/console.h"

namespace neoloom::launch {

core::Progress shown_progress(comm::MpiSession& session, const std::string& style, const std::string& what,
                              const std::string& unit) {
  if (!session.is_root()) return {};
  const auto console = std::make_shared<metrics::Console>(style, session.log().level());
  return [console, what, unit, start = core::now_seconds()](int64_t done, int64_t total) {
    console->work({what, unit, done, total, core::now_seconds() - start});
  };
}

}  // namespace neoloom::launch
