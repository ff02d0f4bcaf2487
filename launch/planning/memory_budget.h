// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/token_store.h"
#include "launch/job/inputs.h"
#include "launch/job/run_identity.h"
#include "model/memory/memory_plan.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/train/step_schedule.h"

namespace neoloom::launch {

/// What a rank's memory follows from.
struct MemoryPlanInput {
  model::MemorySetup setup;
  int64_t flat_elements = 0;  // of the trainable parameters
  std::string gradient_sum;
  bool keeps_best = false;  // load_best_model_at_end
  train::Batching batching;
  int64_t eval_batch_size = 0;
  int64_t prefetch_batches = 0;
  const data::TokenStore* train = nullptr;
  const data::TokenStore* validation = nullptr;  // null: no evaluation
  int64_t ranks_per_node = 1;
  int64_t process_bytes = 0;  // CPUs: what the program holds before all this
};

/// Of a configuration; batching, threads, ranks and bytes of the process are left to the caller.
MemoryPlanInput memory_plan_input(const RunConfig& config, const TaskChoice& task, const Base& base,
                                  const data::TokenStore& train, const data::TokenStore* validation,
                                  const model::DeviceTraits& device);

/// A rank's memory in bytes: of the host on CPUs, of the device on GPUs.
struct RankMemory {
  model::WeightMemory weights;
  train::StateMemory state;
  model::BatchShape batch;  // the largest micro-batch
  model::StepMemory step;
  int64_t evaluation_bytes = 0;
  int64_t prefetch_bytes = 0;      // host
  int64_t process_bytes = 0;       // host
  int64_t weight_share_bytes = 0;  // of what the ranks of a node map together
  int64_t total_bytes = 0;         // when most is in use
};
RankMemory rank_memory(const MemoryPlanInput& question, bool gradient_checkpointing);

/// The largest micro-batch of any order of the samples: its `rows` longest ones.
model::BatchShape largest_batch(const data::TokenStore& store, int64_t rows);

/// "  frozen weights   1.2 GB a node, ..." and so on: one line each.
std::string describe(const RankMemory& memory, const MemoryPlanInput& question);

/// "3.21 GB"
std::string readable_bytes(int64_t bytes);

/// What a rank may take, and what it holds already.
struct MemoryBudget {
  int64_t bytes = 0;
  int64_t process_bytes = 0;
  bool chosen = false;  // runtime.memory_budget, not `auto`
};

/// runtime.memory_budget, or `auto`: on CPUs this rank's share of eight tenths of what the node has left, and what the
/// process holds; on GPUs eight tenths of the device's free memory. 0 bytes: the system does not say.
/// To be called before weights are loaded.
struct DeviceMemory {
  bool on_gpu = false;
  int64_t free_device_bytes = 0;  // GPUs; 0: not known
};
MemoryBudget measure_budget(const RunConfig& config, DeviceMemory place, int64_t ranks_per_node);

/// Settles resolved.gradient_checkpointing by the smallest budget and the largest process of all ranks: what the
/// configuration says; else what a checkpoint kept (resolved); else, with `auto`, on where the plan would not fit
/// without, on any rank. Returns a line for the log. No bit of the run follows from it.
/// Collective: every rank. Throws: CollectiveError(kDevice) with the plan's figures when it does not fit, unless
/// trainer_config.auto_find_batch_size goes on with smaller micro-batches.
std::string resolve_memory(comm::MpiSession& session, const RunConfig& config, MemoryPlanInput question,
                           MemoryBudget budget, ResolvedSettings& resolved);

/// The same decision for given budget; `fits` false: not even with checkpointing, or not as the configuration says.
struct MemoryDecision {
  bool gradient_checkpointing = false;
  bool fits = true;
  RankMemory memory;
};
MemoryDecision decide_memory(const MemoryPlanInput& question, train::Choice choice, int64_t budget_bytes);

/// What to do about a plan that does not fit: the message of resolve_memory.
std::string does_not_fit(const MemoryPlanInput& question, const MemoryDecision& decision, int64_t budget_bytes);

}  // namespace neoloom::launch
