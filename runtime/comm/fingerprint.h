// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/comm/mpi_session.h"

namespace neoloom::comm {

/// Ordered (name, value) pairs of what all ranks must share: versions, configuration, model and data hashes,
/// instruction set, threads.
using Fingerprint = std::vector<std::pair<std::string, std::string>>;

/// Compares over all ranks. Collective: every rank, before the first collective on data.
/// Throws: Error(kUsage) on every rank, naming the first field that differs, both ranks (with hosts) and both values.
void require_equal_fingerprints(MpiSession& session, const Fingerprint& mine);

/// Compares a 64-bit hash of the replicated state over ranks. Collective: every rank.
/// Throws: Error(kNumeric) on every rank naming the step and the ranks whose hash differs from the majority's.
void require_equal_state(MpiSession& session, uint64_t hash, int64_t step);

}  // namespace neoloom::comm
