// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "runtime/comm/mpi_session.h"
#include "runtime/core/progress.h"

namespace neoloom::launch {

/// Begins a piece of work ("evaluating", in "rows"), and shows how far it is until the last copy of the result is
/// destroyed. `style`: logging.progress, as metrics::Console has it. Empty on other ranks than 0.
core::Progress shown_progress(comm::MpiSession& session, const std::string& style, const std::string& what,
                              const std::string& unit);

}  // namespace neoloom::launch
