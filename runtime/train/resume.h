// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/parameter_layout.h"
#include "runtime/checkpoint/state.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::train {

/// Converts a parameter layout to a checkpoint's index.
std::vector<checkpoint::IndexEntry> index_of(const model::ParameterLayout& layout);

/// A checkpoint, loaded on every rank.
struct Resumed {
  checkpoint::State state;
  std::string path;
  std::vector<std::string> skipped;  // "path: reason" of newer checkpoints that did not verify
};

/// Rank 0 reads and verifies a checkpoint, and broadcasts it. `resume`: auto (newest valid one of `directory`), none, a
/// file, or a folder of checkpoints or of a run (its newest valid one). std::nullopt: there is nothing to resume.
/// Collective: every rank. Throws: Error(kCheckpoint) on every rank.
std::optional<Resumed> load_for_all(comm::MpiSession& session, const std::string& directory, const std::string& resume);

}  // namespace neoloom::train
