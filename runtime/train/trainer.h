// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "model/model.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/train/best_model.h"
#include "runtime/train/early_stopping.h"
#include "runtime/train/nvtx_ranges.h"
#include "runtime/train/reporter.h"
#include "runtime/train/result_writer.h"
#include "runtime/train/step_profiler.h"
#include "runtime/train/step_runner.h"
#include "runtime/train/trainer_setup.h"

namespace neoloom::train {

enum class RunStatus { kCompleted, kStopped };

/// The training loop: the same steps on any number of ranks. It decides when to step, log, evaluate and save.
/// StepRunner, evaluate(), Reporter and ResultWriter do it.
class Trainer {
 public:
  /// Collective: every rank.
  Trainer(comm::MpiSession& session, comm::Communicator& communicator, model::Model& model, TrainerSetup setup,
          const std::optional<Resumed>& resumed);

  /// Runs to the end, or to a stop signal. Collective: every rank.
  /// Throws: Error(kNumeric) after too many non-finite steps in a row, or when no step was finite; Error(kOutput) when
  /// the final result, or the checkpoint of a stop, could not be written. Earlier checkpoints stay.
  RunStatus run();

 private:
  /// What the ranks agreed on in a step.
  struct StepFlags {
    bool out_of_memory = false;
    bool stop = false;
  };

  void announce(const std::optional<Resumed>& resumed);
  StepFlags run_step();
  StepFlags agree(StepFlags mine);
  bool checks_replicas() const;
  bool logs_now() const { return schedule_.logs_after(state_.step, setup_.options.logging_first_step); }
  bool needs_results(const StepFlags& flags) const;
  /// Takes results, oldest first, until `left` are pending. Every rank takes the same ones at the same step, so all of
  /// them throw together after too many skipped steps.
  void take_results(size_t left);
  void note(const StepResult& result);
  /// `searches`: the loss scale was still above 1, so that a step may well overflow.
  void note_skipped_step(int64_t step, bool searches);
  [[noreturn]] void end_for_numbers(int64_t step, const std::string& why);
  void shrink_micro_batches();
  void start_loader();
  void log();
  /// Evaluates on all validation sets. Returns the values of all of them.
  nlohmann::ordered_json evaluate_now();
  nlohmann::ordered_json evaluate_on(const ValidationSet& set);
  EvalRequest request_for(const ValidationSet& set, const std::string& what);
  /// What an evaluation is a reason for, beside its log line.
  struct Verdict {
    bool save = false;
    bool stop = false;
  };
  /// Compares an evaluation with earlier ones. Collective: every rank.
  Verdict judge(const nlohmann::ordered_json& values);
  /// Gives the learning rate's schedule the value of an evaluation. Collective: every rank.
  void adapt_learning_rate(double value);
  /// Whether a checkpoint is of the end of a run. Collective: every rank.
  bool is_complete();
  nlohmann::ordered_json end_of_run() const;
  void save();
  /// Excludes the time from `since_seconds` to now from throughput and from the step times.
  void did_something_else(double since_seconds);
  void end_profile();
  void check_replicas();
  void finish(RunStatus status);
  /// Fits the calibration of the result.
  void calibrate_result();
  void require_updates();
  void warn(const std::string& text) { reporter_.warn(state_.step, text); }
  checkpoint::State snapshot() const;
  /// Watches a wait for peers.
  comm::Watchdog::Guard guard(const std::string& phase);

  comm::MpiSession& session_;
  model::Model& model_;
  TrainerSetup setup_;
  StepSchedule schedule_;
  BestModel best_;
  EarlyStopping early_stopping_;  // takes evaluations on rank 0
  TrainingState state_;
  int64_t first_step_ = 0;
  Reporter reporter_;
  ResultWriter writer_;  // used on rank 0
  StepRunner runner_;
  NvtxRanges nvtx_ranges_;
  StepProfiler profiler_;
  std::unique_ptr<MicroBatchLoader> loader_;
  StepResult last_result_;
  nlohmann::ordered_json calibration_;  // of the result, on rank 0; null: none
  bool told_of_step_without_target_ = false;
  double longest_step_seconds_ = 0.0;  // of this process
  bool steps_alike_ = false;           // the next step does the same work as the last ones
};

}  // namespace neoloom::train
