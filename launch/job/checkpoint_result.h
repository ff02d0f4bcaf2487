// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "launch/command_line.h"
#include "launch/job/device.h"
#include "launch/job/inputs.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// The result folder that a run would have written, had it ended at one of its checkpoints.
struct CheckpointResult {
  std::shared_ptr<const std::string> folder;  // on this host, in the cache; removed with the last copy
  Base base;                                  // of the run, with weights
  std::shared_ptr<Device> device;
  std::string base_name;  // as the configuration names it
  std::string note;       // for the log: which checkpoint
};

/// Returns the file of arguments.checkpoint: a step of arguments.run, `last` for its newest valid checkpoint, or a
/// file. Tells `log` of newer ones that are damaged. Throws: Error(kUsage) when there is none, naming those that exist;
/// Error(kCheckpoint) when all are damaged.
std::string find_checkpoint(const ModelArguments& arguments, core::Logger& log);

/// Writes the checkpoint that arguments.checkpoint names as training writes its result: adapter, or whole weights.
/// `device`: to compute on; null: one of the run's configuration.
/// Collective: every rank. Throws: CollectiveError as find_checkpoint; kCheckpoint for a damaged file, or one whose
/// tensors are not those of the run's configuration; and as loading the run's base.
CheckpointResult write_checkpoint_result(comm::MpiSession& session, const ModelArguments& arguments,
                                         std::shared_ptr<Device> device);

}  // namespace neoloom::launch
