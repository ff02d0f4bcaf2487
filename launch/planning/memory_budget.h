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
#include "runtime/train/evaluator.h"
#include "runtime/train/step_schedule.h"

namespace neoloom::launch {

/// Inputs of rank_memory().
struct MemoryPlanInput {
  model::MemorySetup setup;
  int64_t flat_elements = 0;  // of the trainable parameters
  int64_t moment_bytes = 0;   // of the optimizer's state
  std::string gradient_sum;
  bool keeps_best = false;  // load_best_model_at_end
  bool calibrates = false;  // trainer_config.calibrate
  train::Batching batching;
  int64_t eval_batch_size = 0;
  int64_t prefetch_batches = 0;
  const data::TokenStore* train = nullptr;
  std::vector<train::ValidationSet> validation;  // empty: no evaluation
  int64_t ranks = 1;
  int64_t ranks_per_node = 1;
  int64_t process_bytes = 0;  // CPUs: memory of the process before weights are loaded
};

/// Fills the input from a configuration. The caller sets batching, threads, ranks and bytes of the process.
MemoryPlanInput memory_plan_input(const RunConfig& config, const TaskChoice& task, const Base& base,
                                  const data::TokenStore& train, const std::vector<train::ValidationSet>& validation,
                                  const model::DeviceTraits& device);

/// Returns the traits to plan with. Only ranks know their GPU, so it assumes compute capability 8.0, from which on
/// there is flash attention.
model::DeviceTraits planned_device(const RunConfig& config);

/// A rank's memory in bytes: of the host on CPUs, of the device on GPUs.
struct RankMemory {
  model::WeightMemory weights;
  train::StateMemory state;
  model::BatchShape batch;  // the largest micro-batch
  model::StepMemory step;
  int64_t evaluation_bytes = 0;
  int64_t score_bytes = 0;         // host, part of evaluation_bytes on CPUs: scores that metrics rank
  int64_t prefetch_bytes = 0;      // host
  int64_t heap_gap_bytes = 0;      // host: freed memory that no other tensor fits into
  int64_t process_bytes = 0;       // host
  int64_t weight_share_bytes = 0;  // this rank's share of the files that a node's ranks map
  int64_t total_bytes = 0;         // peak
};
RankMemory rank_memory(const MemoryPlanInput& question, bool gradient_checkpointing);

/// Returns the largest possible micro-batch: the `rows` longest samples, or packs if it counts these. With
/// `max_tokens`, it has as many tokens as that allows, or those of the longest one; 0: no limit.
model::BatchShape largest_batch(const data::TokenStore& store, int64_t rows, int64_t max_tokens = 0,
                                bool counts_packs = true);

/// Returns one line per part: "  frozen weights   1.2 GB a node, ...".
std::string describe(const RankMemory& memory, const MemoryPlanInput& question);

/// Memory that a rank may use, and that it uses already.
struct MemoryBudget {
  int64_t bytes = 0;
  int64_t process_bytes = 0;
  bool chosen = false;  // runtime.memory_budget, not `auto`
};

/// Returns runtime.memory_budget. `auto` is, on CPUs, this rank's share of 80 % of the node's available memory, plus
/// what the process holds; on GPUs, 80 % of the device's free memory. 0 bytes: not known. Call it before weights are
/// loaded.
struct DeviceMemory {
  bool on_gpu = false;
  int64_t free_device_bytes = 0;  // GPUs; 0: not known
  int64_t host_bytes = 0;         // CPUs: memory of a machine that is not here; 0: what is available here
};
MemoryBudget measure_budget(const RunConfig& config, DeviceMemory memory, int64_t ranks_per_node);

/// Sets resolved.gradient_checkpointing: to the configuration's value, else to a checkpoint's (resolved), else, with
/// `auto`, to true if the plan does not fit without it. Uses the smallest budget and the largest process of all ranks.
/// Returns a line for the log. Does not change bits of the run.
/// Collective: every rank. Throws: CollectiveError(kDevice) with the plan's figures when it does not fit, unless
/// trainer_config.auto_find_batch_size allows smaller micro-batches.
struct MemoryNote {
  std::string text;
  bool remarkable = false;  // checkpointing was turned on, or the plan does not fit
};
MemoryNote resolve_memory(comm::MpiSession& session, const RunConfig& config, MemoryPlanInput question,
                          MemoryBudget budget, ResolvedSettings& resolved);

/// The same decision for a given budget. `fits` is false if the plan exceeds it with the chosen gradient_checkpointing.
struct MemoryDecision {
  bool gradient_checkpointing = false;
  bool fits = true;
  RankMemory memory;
};
MemoryDecision decide_memory(const MemoryPlanInput& question, train::AutoFlag choice, int64_t budget_bytes);

/// Returns how large a micro-batch may be within the budget: trainer_config.per_device_train_batch_size, at most all
/// samples or packs of the data, or max_tokens_per_micro_batch where that is set, at most the tokens of a step. 0: not
/// even the smallest fits.
int64_t largest_micro_batch(MemoryPlanInput question, bool gradient_checkpointing, int64_t budget_bytes);

/// Returns resolve_memory's message for a plan that does not fit.
std::string does_not_fit(const MemoryPlanInput& question, const MemoryDecision& decision, int64_t budget_bytes);

}  // namespace neoloom::launch
