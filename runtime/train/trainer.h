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
#include "runtime/comm/communicator.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/comm/watchdog.h"
#include "runtime/metrics/console.h"
#include "runtime/metrics/events.h"
#include "runtime/optim/adamw.h"
#include "runtime/optim/schedule.h"
#include "runtime/train/evaluator.h"
#include "runtime/train/gradient_sum.h"
#include "runtime/train/options.h"
#include "runtime/train/plan.h"
#include "runtime/train/resume.h"

namespace neoloom::train {

/// What the trainer asks of the world around it; the composition root provides them.
struct Hooks {
  std::function<bool()> stop_requested;                  // this rank received a signal
  std::function<std::string(const Batching&)> identity;  // JSON object stored in checkpoints
  std::function<void(const at::Tensor& params, const std::string& folder)> write_adapter;  // rank 0 only
  std::function<int64_t()> peak_memory_bytes;
  std::function<void()> synchronize;  // waits for the device; nothing on CPUs
  /// Runs a micro-step's kernels, recorded or not; `snapshot` as in cuda::RepeatedWork. Empty: one by one.
  std::function<void(const model::Model::MicroStep& step, const std::function<std::function<bool()>()>& snapshot)>
      run_micro_step;
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
  double initial_loss_scale = 1.0;  // above 1 only for float16 compute
  std::string config_yaml;
  std::string label_map_json;
  std::string progress = "auto";
  nlohmann::ordered_json run_start;  // what the run_start event says beyond the trainer's own numbers
  Hooks hooks;
  comm::Watchdog* watchdog = nullptr;  // ends this process when peers keep it waiting; must outlive the trainer
};

enum class RunStatus { kCompleted, kStopped };

/// The training loop: the same steps on any number of ranks. Owns the training state.
class Trainer {
 public:
  /// Collective: every rank.
  Trainer(comm::MpiSession& session, comm::Communicator& communicator, model::Model& model, TrainerSetup setup,
          std::optional<Resumed> resumed);
  ~Trainer();

  /// Collective: every rank. Throws: Error(kNumeric) after too many non-finite steps in a row; what was saved stays.
  RunStatus run();

 private:
  struct StepOutcome {
    double loss = 0.0;
    double grad_norm = 0.0;
    double learning_rate = 0.0;
    bool skipped = false;
    bool out_of_memory = false;
    bool stop = false;
  };

  void restore(const Resumed& resumed);
  void announce(const std::optional<Resumed>& resumed);
  StepOutcome run_step();
  void compute_share(const data::Step& step, StepOutcome& outcome);
  void compute_micro_batch(int64_t index);
  bool agree_on_flags(StepOutcome& outcome);
  void update(const data::Step& step, StepOutcome& outcome);
  void note_skipped_step();
  void shrink_micro_batches();
  void start_loader();
  void log_step(const StepOutcome& outcome);
  void evaluate_now();
  void keep_best(const EvalResult& result);
  void save();
  /// Time from `since_seconds` to now is no training time.
  void leave_out_of_throughput(double since_seconds);
  void check_replicas();
  void finish(RunStatus status);
  void write_final_adapter();
  checkpoint::State snapshot() const;
  /// Bounds a phase that waits for peers.
  comm::Watchdog::Guard guard(const std::string& phase);
  void write_event(const nlohmann::ordered_json& event);
  double seconds_left() const;

  comm::MpiSession& session_;
  comm::Communicator& communicator_;
  model::Model& model_;
  TrainerSetup setup_;
  Plan plan_;
  std::vector<optim::ParameterRange> ranges_;
  optim::Schedule schedule_;

  at::Tensor params_, exp_avg_, exp_avg_sq_;  // [n] fp32: the training state
  at::Tensor grads_;                          // [n] fp32: one micro-batch's gradient, then the step's mean
  int64_t step_ = 0;
  int64_t skipped_steps_ = 0;
  int64_t skipped_in_a_row_ = 0;
  int64_t good_steps_ = 0;
  double loss_scale_ = 1.0;
  double best_metric_ = 0.0;
  int64_t best_step_ = -1;
  nlohmann::json history_;  // deterministic events
  double loss_since_log_ = 0.0;
  int64_t steps_since_log_ = 0;

  std::unique_ptr<data::StepList> steps_;
  std::unique_ptr<data::Prefetcher> loader_;
  std::unique_ptr<GradientSum> sum_;
  std::unique_ptr<metrics::EventLog> events_;  // rank 0
  std::unique_ptr<metrics::Console> console_;  // rank 0
  metrics::DeviceMeasure since_log_, since_start_;
  int64_t first_step_ = 0;
  int64_t last_saved_step_ = -1;
  int64_t world_size_before_ = 0;
  double start_seconds_ = 0.0;
  double log_seconds_ = 0.0;
};

}  // namespace neoloom::train
