// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "data/batching/step_list.h"
#include "data/token_store.h"
#include "runtime/train/options.h"

namespace neoloom::train {

/// Batch sizes of a run. Resolved once at the first start, stored in checkpoints, and kept on resume with any number of
/// ranks.
struct Batching {
  int64_t micro_batch_size = 0;        // samples, or packs
  int64_t micro_batches_per_step = 0;  // M of a full step
  int64_t max_tokens = 0;  // of a micro-batch; 0: no limit. Else the other two give the samples of a step alone
  int64_t global_batch_size() const { return micro_batch_size * micro_batches_per_step; }  // samples
};

/// per_device_train_batch_size x gradient_accumulation_steps x ranks, or runtime.global_batch_size, which is a multiple
/// of the micro-batch (launch/config/checks.cpp).
Batching resolve_batching(const Options& options, const RuntimeOptions& runtime, int world_size);

/// Samples, or packs, of a mean micro-batch of this data.
int64_t mean_rows(const data::TokenStore& store, const Batching& batching);

data::StepListOptions step_list_options(const Options& options, const Batching& batching);

/// Step counts and intervals of a run, resolved from the length of an epoch.
struct StepSchedule {
  int64_t steps_per_epoch = 0;
  int64_t total_steps = 0;
  int64_t warmup_steps = 0;
  int64_t logging_steps = 0;  // 0: no log lines
  int64_t eval_steps = 0;     // 0: no evaluation while training
  double eval_delay = 0;      // no evaluation before this many steps, or epochs
  bool delay_in_epochs = false;
  int64_t save_steps = 0;  // 0: only at the end

  /// Epochs done after `step` steps, as Hugging Face logs it.
  double epoch_after(int64_t step) const { return static_cast<double>(step) / static_cast<double>(steps_per_epoch); }
  bool evaluates_after(int64_t step) const {
    const double done = delay_in_epochs ? epoch_after(step) : static_cast<double>(step);
    return eval_steps > 0 && done >= eval_delay && (step % eval_steps == 0 || step == total_steps);
  }
  bool saves_after(int64_t step) const { return step == total_steps || (save_steps > 0 && step % save_steps == 0); }
  bool logs_after(int64_t step, bool first_step_too) const {
    const bool due = logging_steps > 0 && (step % logging_steps == 0 || step == total_steps);
    return due || (first_step_too && step == 1);
  }
};

/// An epoch has at least one step (data::StepList).
StepSchedule resolve_schedule(const Options& options, int64_t steps_per_epoch);

/// Returns a warning of an eval_delay that the run does not reach, or "".
std::string eval_delay_warning(const StepSchedule& schedule);

/// Bytes of a rank's training state.
struct StateMemory {
  int64_t parameter_bytes = 0;
  int64_t gradient_bytes = 0;
  int64_t moment_bytes = 0;
  int64_t sum_bytes = 0;     // of the all-reduce buffer
  int64_t best_bytes = 0;    // in host memory of rank 0: the best model so far
  int64_t saving_bytes = 0;  // in host memory of rank 0, while a checkpoint is written

  int64_t total_bytes() const { return parameter_bytes + gradient_bytes + moment_bytes + sum_bytes; }
};

/// `gradient_sum`: runtime.gradient_sum; `flat_elements`: length of a flat buffer; `moment_bytes`: of the optimizer's
/// state; `keeps_best`: load_best_model_at_end; `keeps_initial`: the state has initial_params. Throws: Error(kUsage)
/// for another kind of sum.
StateMemory state_memory(const std::string& gradient_sum, int64_t flat_elements, int64_t moment_bytes, bool keeps_best,
                         bool keeps_initial = false);

data::Sampling sampling_from_name(const std::string& name);

}  // namespace neoloom::train
