// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/parameter_layout.h"
#include "runtime/checkpoint/state.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::train {

/// The checkpoint's index of a parameter layout.
std::vector<checkpoint::IndexEntry> index_of(const model::ParameterLayout& layout);

/// A checkpoint that every rank holds.
struct Resumed {
  checkpoint::State state;
  std::string path;
  std::vector<std::string> skipped;  // "path: reason" of newer checkpoints that did not verify
};

/// Rank 0 reads and verifies, the others receive. `resume`: auto (newest valid of `directory`), none, a file, or a
/// folder of checkpoints or of a run, whose newest valid one is taken. std::nullopt: there is nothing to resume.
/// Collective: every rank. Throws: Error(kCheckpoint) on every rank.
std::optional<Resumed> load_for_all(comm::MpiSession& session, const std::string& directory, const std::string& resume);

}  // namespace neoloom::train
