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

#include "data/batching/step_list.h"
#include "data/token_store.h"
#include "model/model.h"
#include "runtime/comm/communicator.h"
#include "runtime/cuda/graph_cache.h"
#include "runtime/train/best_model.h"
#include "runtime/train/evaluator.h"
#include "runtime/train/gradient_reducer.h"
#include "runtime/train/options.h"
#include "runtime/train/reporter.h"
#include "runtime/train/resume.h"
#include "runtime/train/step_schedule.h"
#include "runtime/train/training_state.h"
#include "runtime/train/update.h"

namespace neoloom::train {

/// Functions that the trainer calls; the launch room provides them.
struct Hooks {
  std::function<bool()> stop_requested;                  // this rank received a signal
  std::function<std::string(const Batching&)> identity;  // JSON object stored in checkpoints
  /// Writes a state as a result. `evaluation`: the last `eval` event until then; null: none. `calibration`: the text of
  /// calibration.json; empty: none. Rank 0 only.
  std::function<void(const at::Tensor& params, const std::string& folder, int64_t step,
                     const nlohmann::json& evaluation, const std::string& calibration)>
      write_adapter;
  /// Lists of numbers that histograms of a log line show, by name. Rank 0 only. Empty: there are none.
  std::function<nlohmann::ordered_json(const at::Tensor& params)> histograms;
  MistakesFile::Decode decode;  // of the beginning of a sample, for people
  std::function<int64_t()> peak_memory_bytes;
  /// Runs a micro-step's kernels, by CUDA graph or eagerly. Empty: eagerly.
  std::function<void(const cuda::RepeatedWork& work)> run_micro_step;
  /// Called after the run_end event, on rank 0 only. Returns a warning, or "". May be empty.
  std::function<std::string()> run_ended;
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
  std::vector<ValidationSet> validation;  // several have names; empty: no evaluations
  std::vector<float> class_weights;       // [C] factors of the training losses; empty: 1
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

// The parts of a trainer that follow from its setup.

Judge judge_of(const TrainerSetup& setup);
data::StepListOptions step_list_options(const TrainerSetup& setup);
GradientReducer make_reducer(const TrainerSetup& setup, int ranks, const model::ParameterLayout& layout,
                             comm::Communicator& communicator);
std::unique_ptr<Update> make_update(const TrainerSetup& setup, const StepSchedule& schedule,
                                    const model::ParameterLayout& layout, const TrainingState& state);
/// What the run_start event says of batches, steps and data.
nlohmann::ordered_json facts_of_start(const TrainerSetup& setup, const StepSchedule& schedule,
                                      int64_t trainable_parameters);
/// The state of a checkpoint, or of a new run. Throws: as TrainingState::restore; comm::CollectiveError(kCheckpoint)
/// when the checkpoint and peft_config.init_lora_weights do not fit.
TrainingState make_state(const TrainerSetup& setup, model::Model& model, const std::optional<Resumed>& resumed);

}  // namespace neoloom::train
