// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launch/config/run_config.h"
#include "runtime/checkpoint/run_lock.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// Returns the name of a run's result in its folder: adapter, or model of full-parameter training.
std::string result_folder(const RunConfig& config);

/// Returns the path of the result in a run folder; "" when it has none. Full-parameter runs of versions before 0.3
/// wrote theirs to adapter/, too.
std::string result_of(const std::string& run);

/// Returns the text of a run folder's config.yaml: the resolved configuration, and in a comment the folder that
/// relative paths refer to.
std::string run_config_text(const RunConfig& config);

/// Reads config.yaml of a run folder with `overrides`. Relative paths of the base model, the tokenizer, the validation
/// file and init_from that do not exist from the current folder are resolved from the folder in which the run was
/// trained. If both exist, the current folder wins with a warning.
/// Throws: Error(kUsage) as read_config.
RunConfig read_run_config(const std::string& run, const std::vector<std::string>& overrides);

/// Keeps a run that was started before as it is: without a line break between prompt and response, if it has none and
/// the configuration gives no template. Says so in config.warnings. Collective: every rank.
void keep_joined(comm::MpiSession& session, RunConfig& config);
/// The same on one rank.
void keep_joined(RunConfig& config);

/// Throws: Error(kWeights) when the base model of a run's configuration is a path that does not exist, with the places
/// searched and the key to set.
void require_base_there(const std::string& run, const RunConfig& config);

/// Locks a run folder, so that only this job writes into it from here on. Rank 0 holds the lock. Collective: every
/// rank. Throws: as checkpoint::RunLock.
std::unique_ptr<checkpoint::RunLock> lock_run_folder(comm::MpiSession& session, const std::string& folder);

}  // namespace neoloom::launch
