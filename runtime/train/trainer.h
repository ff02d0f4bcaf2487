// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/token_store.h"
#include "model/model.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/train/best_model.h"
#include "runtime/train/options.h"
#include "runtime/train/reporter.h"
#include "runtime/train/result_writer.h"
#include "runtime/train/resume.h"
#include "runtime/train/step_runner.h"
#include "runtime/train/step_schedule.h"
#include "runtime/train/training_state.h"

namespace neoloom::train {

/// Functions that the trainer calls; the launch room provides them.
struct Hooks {
  std::function<bool()> stop_requested;                  // this rank received a signal
  std::function<std::string(const Batching&)> identity;  // JSON object stored in checkpoints
  /// Writes a state as a result. `evaluation`: the last `eval` event until then; null: none. Rank 0 only.
  std::function<void(const at::Tensor& params, const std::string& folder, int64_t step,
                     const nlohmann::json& evaluation)>
      write_adapter;
  std::function<int64_t()> peak_memory_bytes;
  /// Runs a micro-step's kernels, by CUDA graph or eagerly. Empty: eagerly.
  std::function<void(const cuda::RepeatedWork& work)> run_micro_step;
  DeviceReadback device_readback;  // for TrainerSetup::device_step
  /// For tests: called before a step is enqueued (true) and after (false). May be empty.
  std::function<void(bool begins)> enqueues_step;
  /// For tests: called before each micro-batch of this rank. May be empty.
  std::function<void(int64_t step, const std::vector<int64_t>& sample_ids)> before_micro_batch;
};

struct TrainerSetup {
  Options options;
  RuntimeOptions runtime;
  Batching batching;
  std::shared_ptr<const data::TokenStore> train;
  std::shared_ptr<const data::TokenStore> validation;  // may be null
  std::vector<float> class_weights;                    // [C] factors of the training losses; empty: 1
  int64_t pad_id = 0;
  at::Tensor initial_values;  // [n] fp32, for a run that does not resume; undefined: Model::initialize
  std::string device = "cpu";
  /// Use the GPU's optimizer step: it is enqueued, and its results are read while the next step runs. With a loss scale
  /// they are read at once, since they determine the next step's scale.
  bool device_step = false;
  double initial_loss_scale = 1.0;  // above 1 only for float16 compute
  std::string result_folder;        // in output_dir
  std::string config_yaml;          // kept in checkpoints
  std::string config_file;          // config.yaml of the run folder
  std::string label_map_json;
  std::string progress = "auto";
  StepLimit limit;
  nlohmann::ordered_json run_start;  // members of the run_start event beside the trainer's own
  Hooks hooks;
};

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
  void note_skipped_step(int64_t step);
  void shrink_micro_batches();
  void start_loader();
  void log();
  nlohmann::ordered_json evaluate_now();
  /// Compares an evaluation with earlier ones. Returns whether it is a reason to save. Collective: every rank.
  bool judge(const nlohmann::ordered_json& values);
  void save();
  /// Excludes the time from `since_seconds` to now from throughput and from the step times.
  void did_something_else(double since_seconds);
  void check_replicas();
  void finish(RunStatus status);
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
  TrainingState state_;
  int64_t first_step_ = 0;
  Reporter reporter_;
  ResultWriter writer_;  // used on rank 0
  StepRunner runner_;
  std::unique_ptr<MicroBatchLoader> loader_;
  StepResult last_result_;
  bool told_of_step_without_target_ = false;
  double longest_step_seconds_ = 0.0;  // of this process
  bool steps_alike_ = false;           // the next step does the same work as the last ones
};

}  // namespace neoloom::train
