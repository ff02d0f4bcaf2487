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

#include "data/batching/loader.h"
#include "data/batching/step_list.h"
#include "data/token_store.h"
#include "model/model.h"
#include "runtime/checkpoint/directory.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/comm/watchdog.h"
#include "runtime/cuda/graph_cache.h"
#include "runtime/metrics/console.h"
#include "runtime/metrics/events.h"
#include "runtime/optim/device_step.h"
#include "runtime/train/best_model.h"
#include "runtime/train/bucketed_sum.h"
#include "runtime/train/evaluator.h"
#include "runtime/train/options.h"
#include "runtime/train/resume.h"
#include "runtime/train/side_product.h"
#include "runtime/train/step_schedule.h"
#include "runtime/train/update.h"

namespace neoloom::train {

/// What the trainer asks of the world around it; the composition root provides them.
struct Hooks {
  std::function<bool()> stop_requested;                  // this rank received a signal
  std::function<std::string(const Batching&)> identity;  // JSON object stored in checkpoints
  std::function<void(const at::Tensor& params, const std::string& folder)> write_adapter;  // rank 0 only
  std::function<int64_t()> peak_memory_bytes;
  /// Runs a micro-step's kernels, recorded or not. Empty: one by one.
  std::function<void(const cuda::RepeatedWork& work)> run_micro_step;
  DeviceReads device_reads;  // for TrainerSetup::device_step
  /// For tests: called before a step is enqueued (true) and after (false). May be empty.
  std::function<void(bool begins)> enqueues_step;
  /// Faults and traces for tests: called before each micro-batch of this rank.
  std::function<void(int64_t step, const std::vector<int64_t>& sample_ids)> before_micro_batch;
};

struct TrainerSetup {
  Options options;
  RuntimeOptions runtime;
  Batching batching;
  std::shared_ptr<const data::TokenStore> train;
  std::shared_ptr<const data::TokenStore> validation;  // may be null
  data::Task task = data::Task::kSequenceClassification;
  data::ProblemType problem_type = data::ProblemType::kSingleLabel;
  int64_t pad_id = 0;
  at::Tensor initial_values;  // [n] fp32, where a run that does not resume starts; undefined: Model::initialize
  std::string device = "cpu";
  /// The optimizer step as GPUs make it: enqueued, and its results read while the next step is under way. With a loss
  /// scale they are read at once, since the next step computes with the scale that follows from them.
  bool device_step = false;
  double initial_loss_scale = 1.0;  // above 1 only for float16 compute
  std::string config_yaml;          // kept in checkpoints
  std::string config_file;          // config.yaml of the run folder
  std::string label_map_json;
  std::string progress = "auto";
  nlohmann::ordered_json run_start;  // what the run_start event says beyond the trainer's own numbers
  Hooks hooks;
};

/// Where float16 runs start, and what their loss scale never exceeds. A logit's gradient is at most the scale: half of
/// torch GradScaler's start keeps it within float16.
inline constexpr double kLargestLossScale = 32768.0;

enum class RunStatus { kCompleted, kStopped };

/// The training loop: the same steps on any number of ranks. Owns the training state.
class Trainer {
 public:
  /// Collective: every rank.
  Trainer(comm::MpiSession& session, comm::Communicator& communicator, model::Model& model, TrainerSetup setup,
          std::optional<Resumed> resumed);
  ~Trainer();

  /// Collective: every rank. Throws: Error(kNumeric) after too many non-finite steps in a row, or when no step was
  /// finite; Error(kOutput) when the final result, or the checkpoint of a stop, could not be written. What was saved
  /// stays.
  RunStatus run();

 private:
  /// What the ranks agreed on in a step.
  struct StepFlags {
    bool out_of_memory = false;
    bool stop = false;
  };

  void restore(const Resumed& resumed);
  void make_update();
  void announce(const std::optional<Resumed>& resumed);
  StepFlags run_step();
  void compute_share(const data::Step& step, StepFlags& flags);
  void compute_micro_batch(int64_t index, bool last);
  void run_kernels(const model::Model::MicroStep& step, bool last);
  void guard_sums();
  void sum_over_ranks(const StepFlags& flags);
  void agree_on_flags(StepFlags& flags);
  bool checks_replicas() const;
  bool needs_results(const StepFlags& flags) const;
  void take_results(size_t left);
  void note(const StepResult& result);
  void note_skipped_step(int64_t step);
  void note_step_without_target(int64_t step);
  void shrink_micro_batches();
  void start_loader();
  void remember(const nlohmann::json& event);
  void log_step();
  void measure_sums();
  /// Of every rank. Collective: every rank.
  std::vector<metrics::DeviceMeasure> gather_measures(const metrics::DeviceMeasure& mine);
  void evaluate_now();
  void save();
  void drop_old_checkpoints(const checkpoint::Directory& directory);
  void write_side_products();
  /// Time from `since_seconds` to now is no training time: ranks did something else, some of them alone.
  void leave_out_of_throughput(double since_seconds);
  void check_replicas();
  void finish(RunStatus status);
  void require_updates();
  void write_run_end(const std::string& status, double seconds, const std::vector<metrics::DeviceMeasure>& devices);
  void write_final_adapter();
  void write_best_adapter(const std::string& folder) const;
  std::string unsaved_result(RunStatus status);
  std::string newest_state() const;
  void warn(const std::string& text) { warn_of(step_, text); }
  void warn_of(int64_t step, const std::string& text);
  checkpoint::State snapshot() const;
  /// Watches a wait for peers.
  comm::Watchdog::Guard guard(const std::string& phase);
  void write_event(const nlohmann::ordered_json& event);
  double seconds_left() const;

  comm::MpiSession& session_;
  comm::Communicator& communicator_;
  model::Model& model_;
  TrainerSetup setup_;
  StepSchedule schedule_;

  optim::FlatBuffers buffers_;  // params and moments: the training state; grads: of one micro-batch, then the mean
  int64_t step_ = 0;            // steps made; on devices: enqueued
  int64_t skipped_steps_ = 0;
  int64_t skipped_in_a_row_ = 0;
  int64_t good_steps_ = 0;
  double loss_scale_ = 1.0;
  BestModel best_;
  std::string history_;  // deterministic events as JSON, with commas between them: most of what a long run keeps
  double loss_since_log_ = 0.0;
  int64_t steps_since_log_ = 0;  // that had a loss
  int64_t logged_step_ = 0;      // the last log line, or the start
  bool told_of_step_without_target_ = false;
  StepResult last_result_;

  std::unique_ptr<data::StepList> steps_;
  std::unique_ptr<data::Prefetcher> loader_;
  BucketedSum sum_;
  std::unique_ptr<Update> update_;
  std::optional<comm::Watchdog::Guard> sums_guard_;  // while sums over ranks are under way
  double longest_step_seconds_ = 0.0;                // of this process
  bool steps_alike_ = false;                         // the next step does nothing that the last ones did not
  std::unique_ptr<metrics::EventLog> events_;        // rank 0
  std::unique_ptr<metrics::Console> console_;        // rank 0
  SideProduct config_file_{"config.yaml"};           // rank 0, as all that follows
  SideProduct best_folder_{"adapter-best"};
  metrics::DeviceMeasure since_log_, since_start_;
  uint64_t bytes_before_log_ = 0;
  int64_t first_step_ = 0;
  int64_t last_saved_step_ = -1;
  std::string save_problem_;  // why the last attempt to save failed
  int64_t world_size_before_ = 0;
  double start_seconds_ = 0.0;
  double log_seconds_ = 0.0;
};

}  // namespace neoloom::train
