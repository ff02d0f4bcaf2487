// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/step_schedule.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/checkpoint/directory.h"
#include "runtime/core/error.h"
#include "runtime/optim/schedule.h"
#include "runtime/train/gradient_sum.h"

namespace neoloom::train {
namespace {

// Returns a number of steps. As in Hugging Face, a value below 1 is a share of all steps.
int64_t count_or_share(double value, int64_t total_steps) {
  const double count = value < 1.0 ? std::ceil(value * static_cast<double>(total_steps)) : value;
  return std::max<int64_t>(1, static_cast<int64_t>(count));
}

int64_t interval_steps(Interval interval, double steps, const StepSchedule& plan) {
  switch (interval) {
    case Interval::kNo:
    case Interval::kBest:  // an evaluation decides
      return 0;
    case Interval::kSteps:
      return count_or_share(steps, plan.total_steps);
    case Interval::kEpoch:
      return plan.steps_per_epoch;
  }
  return 0;
}

}  // namespace

Batching resolve_batching(const Options& options, const RuntimeOptions& runtime, int world_size) {
  Batching batching;
  batching.micro_batch_size = options.per_device_train_batch_size;
  if (runtime.global_batch_size > 0) {
    batching.micro_batches_per_step = runtime.global_batch_size / batching.micro_batch_size;
  } else {
    batching.micro_batches_per_step = options.gradient_accumulation_steps * world_size;
  }
  batching.max_tokens = options.max_tokens_per_micro_batch;
  return batching;
}

int64_t mean_rows(const data::TokenStore& store, const Batching& batching) {
  if (batching.max_tokens == 0) return batching.micro_batch_size;
  const auto lengths = store.lengths();
  const double mean = std::accumulate(lengths.begin(), lengths.end(), 0.0) / static_cast<double>(store.packs());
  return std::clamp<int64_t>(std::llround(static_cast<double>(batching.max_tokens) / mean), 1,
                             batching.global_batch_size());
}

data::StepListOptions step_list_options(const Options& options, const Batching& batching) {
  return {.seed = static_cast<uint64_t>(options.data_seed.value_or(options.seed)),
          .micro_batch_size = batching.micro_batch_size,
          .micro_batches_per_step = batching.micro_batches_per_step,
          .sampling = sampling_from_name(options.train_sampling_strategy),
          .drop_last = options.dataloader_drop_last,
          .max_tokens = batching.max_tokens};
}

StepSchedule resolve_schedule(const Options& options, int64_t steps_per_epoch) {
  StepSchedule plan;
  plan.steps_per_epoch = steps_per_epoch;
  plan.total_steps =
      options.max_steps > 0
          ? options.max_steps
          : static_cast<int64_t>(std::ceil(options.num_train_epochs * static_cast<double>(steps_per_epoch)));
  plan.warmup_steps = optim::resolve_warmup_steps(options.warmup_steps, plan.total_steps);
  plan.logging_steps = interval_steps(options.logging_strategy, options.logging_steps, plan);
  plan.eval_steps =
      interval_steps(options.eval_strategy, options.eval_steps > 0 ? options.eval_steps : options.logging_steps, plan);
  plan.eval_delay = options.eval_delay;
  plan.delay_in_epochs = options.eval_strategy == Interval::kEpoch;
  plan.save_steps = interval_steps(options.save_strategy, options.save_steps, plan);
  return plan;
}

std::string eval_delay_warning(const StepSchedule& schedule) {
  const double end =
      schedule.delay_in_epochs ? schedule.epoch_after(schedule.total_steps) : static_cast<double>(schedule.total_steps);
  if (schedule.eval_steps == 0 || schedule.eval_delay <= end) return "";
  return fmt::format("trainer_config.eval_delay: {} {} are more than the run has ({:.4g}), so nothing is evaluated",
                     schedule.eval_delay, schedule.delay_in_epochs ? "epochs" : "steps", end);
}

StateMemory state_memory(const std::string& gradient_sum, int64_t flat_elements, int64_t moment_bytes, bool keeps_best,
                         bool keeps_initial) {
  const int64_t buffer = flat_elements * static_cast<int64_t>(sizeof(float));
  const int64_t initial = keeps_initial ? buffer : 0;
  StateMemory memory;
  memory.parameter_bytes = buffer + initial;
  memory.gradient_bytes = buffer;
  memory.moment_bytes = moment_bytes;
  memory.sum_bytes = gradient_sum_bytes(gradient_sum, flat_elements);
  memory.best_bytes = keeps_best ? buffer : 0;
  // Saving copies values and moments. A checkpoint below the limit is also built in memory as a whole file.
  const int64_t copy = buffer + moment_bytes + initial + memory.best_bytes;
  memory.saving_bytes = copy + (copy <= static_cast<int64_t>(checkpoint::Directory::kLargestImageBytes) ? copy : 0);
  return memory;
}

data::Sampling sampling_from_name(const std::string& name) {
  if (name == "random") return data::Sampling::kRandom;
  if (name == "sequential") return data::Sampling::kSequential;
  if (name == "group_by_length") return data::Sampling::kGroupByLength;
  core::fail(core::ErrorKind::kUsage,
             "trainer_config.train_sampling_strategy: expected random, sequential or group_by_length, found {}", name);
}

}  // namespace neoloom::train
