// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/trainer_setup.h"

#include <c10/core/Device.h>
#include <fmt/format.h>

#include <utility>

#include "runtime/comm/collective_error.h"
#include "runtime/core/error.h"
#include "runtime/train/optimizer_setup.h"
#include "runtime/train/targets.h"

namespace neoloom::train {
namespace {

using core::ErrorKind;

// Returns the smallest size of a bucket of the gradient sum. On CPUs the default is one bucket, because MPI makes
// progress inside its calls only, so an all-reduce would not overlap with compute.
int64_t bucket_bytes(const TrainerSetup& setup, int ranks, int64_t buffer_bytes) {
  if (setup.runtime.bucket_bytes > 0) return setup.runtime.bucket_bytes;
  return setup.device == "cpu" || ranks == 1 ? buffer_bytes : automatic_bucket_bytes(buffer_bytes);
}

optim::ScheduleSettings schedule_settings(const Options& options, const StepSchedule& schedule) {
  return {.name = options.lr_scheduler_type,
          .arguments = options.lr_scheduler_kwargs,
          .learning_rate = options.learning_rate,
          .warmup_steps = schedule.warmup_steps,
          .total_steps = schedule.total_steps};
}

void start(const TrainerSetup& setup, const model::Model& model, TrainingState& state) {
  if (setup.initial_values.defined()) {
    state.buffers.params.copy_(setup.initial_values);
  } else {
    model.initialize(state.buffers.params, static_cast<uint64_t>(setup.options.seed));
  }
}

}  // namespace

Judge judge_of(const TrainerSetup& setup) { return judge_of(setup.options, hashes_of(setup.validation)); }

data::StepListOptions step_list_options(const TrainerSetup& setup) {
  return step_list_options(setup.options, setup.batching);
}

GradientReducer make_reducer(const TrainerSetup& setup, int ranks, const model::ParameterLayout& layout,
                             comm::Communicator& communicator) {
  std::unique_ptr<GradientSum> sum = make_gradient_sum({.kind = setup.runtime.gradient_sum,
                                                        .n_elements = layout.total_elements,
                                                        .device = c10::Device(setup.device),
                                                        .device_operators = setup.device_step});
  const auto element = static_cast<int64_t>(comm::element_bytes(sum->part(0, 0).element));
  std::vector<int64_t> begins = cut_buckets(layout.block_begin_elements, layout.total_elements,
                                            bucket_bytes(setup, ranks, sum->bytes()) / element);
  return {std::move(sum), communicator, std::move(begins)};
}

std::unique_ptr<Update> make_update(const TrainerSetup& setup, const StepSchedule& schedule,
                                    const model::ParameterLayout& layout, const TrainingState& state) {
  UpdateSetup update{.ranges = parameter_ranges(setup.options, layout),
                     .optimizer = optimizer_options(setup.options),
                     .max_grad_norm = setup.options.max_grad_norm,
                     .learning_rate = setup.options.learning_rate,
                     .total_steps = schedule.total_steps,
                     .updates_done = state.step - state.skipped_steps};
  if (state.metric_schedule) {
    update.metric_rate = [rate = state.metric_schedule.get()] { return rate->learning_rate(); };
  } else {
    update.schedule = optim::make_schedule(schedule_settings(setup.options, schedule));
  }
  return setup.device_step
             ? make_device_update(std::move(update), setup.hooks.device_readback, c10::Device(setup.device))
             : make_host_update(std::move(update));
}

nlohmann::ordered_json facts_of_start(const TrainerSetup& setup, const StepSchedule& schedule,
                                      int64_t trainable_parameters) {
  nlohmann::ordered_json facts = {{"micro_batch_size", setup.batching.micro_batch_size},
                                  {"micro_batches_per_step", setup.batching.micro_batches_per_step},
                                  {"global_batch_size", setup.batching.global_batch_size()},
                                  {"steps_per_epoch", schedule.steps_per_epoch},
                                  {"total_steps", schedule.total_steps},
                                  {"warmup_steps", schedule.warmup_steps},
                                  {"trainable_parameters", trainable_parameters},
                                  {"seed", setup.options.seed},
                                  {"token_lengths", length_histogram(*setup.train)}};
  if (setup.batching.max_tokens > 0) facts["max_tokens_per_micro_batch"] = setup.batching.max_tokens;
  return facts;
}

TrainingState make_state(const TrainerSetup& setup, model::Model& model, const std::optional<Resumed>& resumed) {
  TrainingState state(model.layout().total_elements, c10::Device(setup.device), setup.initial_loss_scale,
                      optimizer_options(setup.options), factored_elements(model.layout()));
  state.spikes = LossSpikes(setup.options.loss_spike_policy);
  if (optim::follows_metric(setup.options.lr_scheduler_type)) {
    state.metric_schedule =
        optim::make_metric_schedule(schedule_settings(setup.options, {}), judge_of(setup).greater_is_better);
  }
  const bool splits = model.setup().lora && model.setup().lora->init_lora_weights.splits_weights();
  if (resumed) {
    state.restore(*resumed, model.layout());
    if (splits != state.initial_params.defined()) {
      throw comm::CollectiveError(ErrorKind::kCheckpoint,
                                  fmt::format("{}: initial_params: {}; resume with the peft_config.init_lora_weights "
                                              "it was written with",
                                              resumed->path, splits ? "expected, but missing" : "not expected"));
    }
  } else {
    start(setup, model, state);
    if (splits) state.initial_params = state.buffers.params.clone();
  }
  if (splits) model.subtract(state.initial_params);
  return state;
}

}  // namespace neoloom::train
