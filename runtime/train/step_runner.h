// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/model.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/watchdog.h"
#include "runtime/cuda/graph_cache.h"
#include "runtime/metrics/events.h"
#include "runtime/train/gradient_reducer.h"
#include "runtime/train/micro_batch_loader.h"
#include "runtime/train/training_state.h"
#include "runtime/train/update.h"

namespace neoloom::train {

struct StepRunnerSetup {
  uint64_t seed = 0;
  int64_t steps_per_epoch = 1;
  bool survives_lack_of_memory = false;  // trainer_config.auto_find_batch_size
  /// Watches a wait for peers. May be empty.
  std::function<comm::Watchdog::Guard(const std::string& phase)> guard;
  /// Called repeatedly while the host waits for the device to finish a step. May be empty.
  std::function<void()> while_waiting;
  /// Runs a micro-step's kernels, by CUDA graph or eagerly. Empty: eagerly.
  std::function<void(const cuda::RepeatedWork& work)> run_micro_step;
  /// For tests: called before each micro-batch of this rank. May be empty.
  std::function<void(int64_t step, const std::vector<int64_t>& sample_ids)> before_micro_batch;
};

/// Runs one optimizer step: this rank's micro-batches, the sum over ranks, the update. Before the update the caller
/// makes the ranks agree on whether memory sufficed.
class StepRunner {
 public:
  /// `model` must outlive this.
  StepRunner(model::Model& model, GradientReducer reducer, std::unique_ptr<Update> update, StepRunnerSetup setup);

  const GradientReducer& reducer() const { return reducer_; }

  /// Computes and adds this rank's micro-batches of the step state.step. With setup.survives_lack_of_memory, returns
  /// false when one of them did not fit into memory; the state is then as before the step. Adds times and counts to
  /// `measure`.
  bool compute(MicroBatchLoader& loader, TrainingState& state, metrics::DeviceMeasure& measure);
  /// Completes the sums over ranks. Collective: every rank.
  void sum_over_ranks(metrics::DeviceMeasure& measure) { end_sums(&GradientReducer::wait, measure); }
  /// Ends a step that no rank updates from: see GradientReducer::abandon. Collective: every rank.
  void abandon(metrics::DeviceMeasure& measure) { end_sums(&GradientReducer::abandon, measure); }
  /// Updates the parameters from the sum, as step state.step + 1. take_result() returns its result.
  void update(TrainingState& state, metrics::DeviceMeasure& measure);
  /// See Update::rate_changed.
  void rate_changed() { update_->rate_changed(); }
  /// Number of steps whose results are not taken yet.
  size_t pending() const { return update_->pending(); }
  /// Returns the oldest of these results; waits for the device if needed.
  StepResult take_result() { return update_->take(setup_.while_waiting); }

 private:
  LoadedMicroBatch next(MicroBatchLoader& loader, metrics::DeviceMeasure& measure);
  bool compute_shard(MicroBatchLoader& loader, LoadedMicroBatch loaded, TrainingState& state,
                     metrics::DeviceMeasure& measure);
  void compute_micro_batch(const LoadedMicroBatch& loaded, TrainingState& state, metrics::DeviceMeasure& measure);
  void run_kernels(const model::Model::MicroStep& step, const at::Tensor& grads, bool last);
  void guard_sums();
  void end_sums(void (GradientReducer::*end)(), metrics::DeviceMeasure& measure);

  model::Model& model_;
  GradientReducer reducer_;
  std::unique_ptr<Update> update_;
  StepRunnerSetup setup_;
  StepHeader header_;                                // of the step under way
  std::optional<comm::Watchdog::Guard> sums_guard_;  // while sums over ranks are under way
};

}  // namespace neoloom::train
