// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/trainer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <new>

#include "runtime/comm/collective_error.h"
#include "runtime/comm/fingerprint.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/hash.h"
#include "runtime/train/batches.h"

namespace neoloom::train {
namespace {

using core::ErrorKind;
using nlohmann::ordered_json;

constexpr int64_t kLossScaleGrowthSteps = 2000;  // Hugging Face's (torch GradScaler's) growth interval

data::StepListOptions step_list_options(const TrainerSetup& setup) {
  const Options& options = setup.options;
  return {.seed = static_cast<uint64_t>(options.data_seed.value_or(options.seed)),
          .micro_batch_size = setup.batching.micro_batch_size,
          .micro_batches_per_step = setup.batching.micro_batches_per_step,
          .sampling = sampling_from_name(options.train_sampling_strategy),
          .drop_last = options.dataloader_drop_last};
}

// Neighbouring slots with the same decay become one range; the padding between them holds zeros.
std::vector<optim::ParameterRange> decay_ranges(const model::ParameterLayout& layout) {
  std::vector<optim::ParameterRange> ranges;
  for (const model::ParameterSlot& slot : layout.slots) {
    const int64_t end = slot.offset_elements + slot.elements();
    if (!ranges.empty() && ranges.back().decay == slot.decay) {
      ranges.back().end = end;
    } else {
      ranges.push_back({slot.offset_elements, end, slot.decay});
    }
  }
  return ranges;
}

void from_host(const std::vector<float>& values, at::Tensor& tensor) {
  at::Tensor host = at::empty({static_cast<int64_t>(values.size())}, at::kFloat);
  std::copy(values.begin(), values.end(), host.mutable_data_ptr<float>());
  tensor.copy_(host);
}

// World size of the last run_start in an event log; 0 when there is none.
int64_t last_world_size(const std::string& path) {
  std::ifstream file(path);
  int64_t world_size = 0;
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json event = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (event.is_object() && event.value("event", "") == "run_start")
      world_size = event.value("world_size", int64_t{0});
  }
  return world_size;
}

bool is_out_of_memory(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return true;
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) return true;
  // LibTorch's CPU allocator reports a failed allocation as a plain error.
  return std::string_view(error.what()).find("DefaultCPUAllocator: can't allocate memory") != std::string_view::npos ||
         std::string_view(error.what()).find("DefaultCPUAllocator: not enough memory") != std::string_view::npos;
}

}  // namespace

Trainer::Trainer(comm::MpiSession& session, comm::Communicator& communicator, model::Model& model, TrainerSetup setup,
                 std::optional<Resumed> resumed)
    : session_(session),
      communicator_(communicator),
      model_(model),
      setup_(std::move(setup)),
      ranges_(decay_ranges(model.layout())),
      schedule_(optim::schedule_from_name(setup_.options.lr_scheduler_type)),
      params_(at::zeros({model.layout().total_elements},
                        at::TensorOptions().dtype(at::kFloat).device(c10::Device(setup_.device)))),
      exp_avg_(at::zeros_like(params_)),
      exp_avg_sq_(at::zeros_like(params_)),
      grads_(at::zeros_like(params_)),
      loss_scale_(setup_.initial_loss_scale),
      history_(nlohmann::json::array()),
      sum_(make_gradient_sum(setup_.runtime.gradient_sum, model.layout().total_elements, params_)) {
  steps_ = std::make_unique<data::StepList>(setup_.train->lengths(), setup_.train->target_counts(),
                                            step_list_options(setup_));
  plan_ = resolve_plan(setup_.options, steps_->steps_per_epoch());
  if (resumed) {
    restore(*resumed);
  } else {
    model_.initialize(params_, static_cast<uint64_t>(setup_.options.seed));
    if (setup_.initial_values.defined()) params_.copy_(setup_.initial_values);
  }
  first_step_ = step_;
  since_start_.rank = session_.rank();
  since_start_.host = session_.host_name();
  since_start_.device = setup_.device;
  since_log_ = since_start_;
  if (session_.is_root()) {
    const std::string path = setup_.options.output_dir + "/metrics.jsonl";
    world_size_before_ = last_world_size(path);
    events_ = std::make_unique<metrics::EventLog>(path);
    console_ = std::make_unique<metrics::Console>(setup_.progress, /*quiet=*/false);
  }
  check_replicas();
  announce(resumed);
}

Trainer::~Trainer() = default;

void Trainer::restore(const Resumed& resumed) {
  const checkpoint::State& state = resumed.state;
  if (state.index != index_of(model_.layout())) {
    throw comm::CollectiveError(
        ErrorKind::kCheckpoint,
        fmt::format("{}: its {} tensors do not have the names and shapes of this model's {} trainable tensors; resume "
                    "with the configuration it was written with",
                    resumed.path, state.index.size(), model_.layout().slots.size()));
  }
  from_host(state.params, params_);
  from_host(state.exp_avg, exp_avg_);
  from_host(state.exp_avg_sq, exp_avg_sq_);
  step_ = last_saved_step_ = state.step;
  skipped_steps_ = state.skipped_steps;
  good_steps_ = state.good_steps;
  loss_scale_ = state.loss_scale;
  best_metric_ = state.best_metric;
  best_step_ = state.best_step;
  const nlohmann::json history = nlohmann::json::parse(state.history);
  history_ = history.at("events");
  loss_since_log_ = history.at("loss_since_log");
  steps_since_log_ = history.at("steps_since_log");
  skipped_in_a_row_ = history.at("skipped_in_a_row");
}

void Trainer::announce(const std::optional<Resumed>& resumed) {
  if (!session_.is_root()) return;
  const model::ParameterLayout& layout = model_.layout();
  ordered_json event = {{"event", "run_start"},
                        {"world_size", session_.size()},
                        {"micro_batch_size", setup_.batching.micro_batch_size},
                        {"micro_batches_per_step", setup_.batching.micro_batches_per_step},
                        {"global_batch_size", setup_.batching.global_batch_size()},
                        {"steps_per_epoch", plan_.steps_per_epoch},
                        {"total_steps", plan_.total_steps},
                        {"warmup_steps", plan_.warmup_steps},
                        {"trainable_parameters", layout.trainable_elements},
                        {"allreduce_bytes_per_step", sum_->bytes()},
                        {"seed", setup_.options.seed}};
  event.update(setup_.run_start);
  write_event(event);
  console_->notice(fmt::format(
      "training {} samples: {} steps of {} ({} an epoch), {} trainable parameters, {} bytes all-reduced a step",
      setup_.train->size(), plan_.total_steps, setup_.batching.global_batch_size(), plan_.steps_per_epoch,
      layout.trainable_elements, sum_->bytes()));
  if (!resumed) return;
  for (const std::string& skipped : resumed->skipped) {
    console_->warning("checkpoint skipped: " + skipped);
    write_event({{"event", "warning"}, {"message", "checkpoint skipped: " + skipped}});
  }
  console_->notice(fmt::format("resuming {} at step {} of {}", resumed->path, step_, plan_.total_steps));
  write_event(
      {{"event", "resume"}, {"step", step_}, {"path", resumed->path}, {"world_size_before", world_size_before_}});
}

RunStatus Trainer::run() {
  if (step_ >= plan_.total_steps) {
    if (session_.is_root()) {
      console_->notice(fmt::format("this run is complete: {} of {} steps", step_, plan_.total_steps));
    }
    finish(RunStatus::kCompleted);
    return RunStatus::kCompleted;
  }
  start_loader();
  if (session_.is_root()) {
    console_->notice(
        fmt::format("the first step begins {:.2f} s after the start of the process", core::process_age_seconds()));
  }
  start_seconds_ = log_seconds_ = core::now_seconds();
  while (step_ < plan_.total_steps) {
    const StepOutcome outcome = run_step();
    if (outcome.out_of_memory) {
      shrink_micro_batches();
      continue;
    }
    ++step_;
    session_.mark(step_);
    loss_since_log_ += outcome.loss;
    ++steps_since_log_;
    if (plan_.logs_after(step_, setup_.options.logging_first_step)) log_step(outcome);
    if (session_.is_root()) console_->tick(step_, plan_.total_steps, seconds_left());
    if (setup_.validation && plan_.evaluates_after(step_)) evaluate_now();
    if (setup_.runtime.state_check_steps > 0 && step_ % setup_.runtime.state_check_steps == 0) check_replicas();
    if (plan_.saves_after(step_) || outcome.stop) save();
    if (outcome.stop && step_ < plan_.total_steps) {
      finish(RunStatus::kStopped);
      return RunStatus::kStopped;
    }
  }
  finish(RunStatus::kCompleted);
  return RunStatus::kCompleted;
}

Trainer::StepOutcome Trainer::run_step() {
  const data::Step step = steps_->step(step_ / plan_.steps_per_epoch, step_ % plan_.steps_per_epoch);
  StepOutcome outcome;
  compute_share(step, outcome);
  if (!agree_on_flags(outcome)) return outcome;
  {
    const core::ScopedTimer timer(since_log_.comm_seconds);
    const auto bounded = guard("all-reduce of gradients");
    sum_->all_reduce(communicator_);
    setup_.hooks.synchronize();
  }
  const core::ScopedTimer timer(since_log_.compute_seconds);
  update(step, outcome);
  return outcome;
}

void Trainer::compute_share(const data::Step& step, StepOutcome& outcome) {
  const auto micro_batches = static_cast<int64_t>(step.micro_batches.size());
  sum_->begin(step.target_count, loss_scale_, micro_batches);
  for (const int64_t index : data::dealt_to_rank(micro_batches, session_.rank(), session_.size())) {
    try {
      compute_micro_batch(index);
    } catch (const std::exception& error) {
      if (!is_out_of_memory(error)) throw;
      core::require(setup_.options.auto_find_batch_size, ErrorKind::kDevice,
                    "out of memory in step {} with micro-batches of {} samples ({}): set "
                    "trainer_config.auto_find_batch_size: true, or lower trainer_config.per_device_train_batch_size or "
                    "tokenizer_config.max_length",
                    step_ + 1, setup_.batching.micro_batch_size, error.what());
      outcome.out_of_memory = true;
      return;
    }
  }
}

// `index`: place in the step's list.
void Trainer::compute_micro_batch(int64_t index) {
  std::optional<data::PaddedBatch> padded;
  {
    const core::ScopedTimer timer(since_log_.data_seconds);
    padded = loader_->pop();
  }
  core::require(padded.has_value(), ErrorKind::kInternal, "the loader ended before step {}", step_ + 1);
  const core::ScopedTimer timer(since_log_.compute_seconds);
  if (setup_.hooks.before_micro_batch) setup_.hooks.before_micro_batch(step_ + 1, padded->sample_ids);
  const model::Batch batch = to_model_batch(*padded, model_.setup().head, /*labelled=*/true);
  const model::DropoutKey key{static_cast<uint64_t>(setup_.options.seed), step_ / plan_.steps_per_epoch, step_, index};
  const model::Model::MicroStep step = model_.prepare(batch, params_, grads_, key, loss_scale_);
  if (setup_.hooks.run_micro_step) {
    setup_.hooks.run_micro_step(step, [this, &step] {
      return [this, &step, grads = grads_.clone(), loss = step.loss.loss.clone()] {
        return grads.equal(grads_) && loss.equal(step.loss.loss);
      };
    });
  } else {
    step.begin();
    step.enqueue();
  }
  sum_->add(grads_, step.loss.loss);
  since_log_.batches += 1;
  since_log_.samples += padded->rows;
  since_log_.tokens += padded->tokens;
  since_log_.padded_tokens += padded->rows * padded->length;
  since_log_.flops +=
      model_.training_flops_per_token(padded->length) * static_cast<double>(padded->rows * padded->length);
}

// One small word of host flags a step: whatever one rank saw, all take the same path.
bool Trainer::agree_on_flags(StepOutcome& outcome) {
  constexpr int64_t kStop = 1, kOutOfMemory = 2;
  // Two elements, so that a maximum keeps both flags.
  std::array<int64_t, 2> flags = {setup_.hooks.stop_requested() ? kStop : 0, outcome.out_of_memory ? kOutOfMemory : 0};
  {
    const core::ScopedTimer timer(since_log_.comm_seconds);
    const auto bounded = guard("agreeing on flags");
    session_.all_reduce_max(flags);
  }
  outcome.stop = flags[0] != 0;
  outcome.out_of_memory = flags[1] != 0;
  return !outcome.out_of_memory;
}

void Trainer::update(const data::Step& step, StepOutcome& outcome) {
  const GradientSum::Result result = sum_->finish(grads_);
  outcome.loss = result.loss_sum / static_cast<double>(std::max<int64_t>(1, step.target_count));
  const int64_t updates_done = step_ - skipped_steps_;
  outcome.learning_rate = setup_.options.learning_rate *
                          optim::schedule_factor(schedule_, updates_done, plan_.warmup_steps, plan_.total_steps);
  if (result.flagged > 0) {
    outcome.skipped = true;
    outcome.loss = outcome.grad_norm = std::nan("");
    note_skipped_step();
    return;
  }
  skipped_in_a_row_ = 0;
  outcome.grad_norm = optim::clip_grad_norm(grads_, setup_.options.max_grad_norm);
  const optim::AdamWOptions adamw{.beta1 = setup_.options.adam_beta1,
                                  .beta2 = setup_.options.adam_beta2,
                                  .epsilon = setup_.options.adam_epsilon,
                                  .weight_decay = setup_.options.weight_decay};
  optim::adamw_step(params_, grads_, exp_avg_, exp_avg_sq_, ranges_, adamw, outcome.learning_rate, updates_done + 1);
  if (setup_.initial_loss_scale > 1.0 && ++good_steps_ >= kLossScaleGrowthSteps) {
    loss_scale_ *= 2.0;
    good_steps_ = 0;
  }
}

void Trainer::note_skipped_step() {
  ++skipped_steps_;
  ++skipped_in_a_row_;
  good_steps_ = 0;
  if (setup_.initial_loss_scale > 1.0) loss_scale_ = std::max(1.0, loss_scale_ / 2.0);
  if (session_.is_root()) {
    const std::string text = fmt::format("step {}: gradients are not finite; the update is skipped", step_ + 1);
    console_->warning(text);
    write_event({{"event", "warning"}, {"step", step_ + 1}, {"message", text}});
  }
  if (skipped_in_a_row_ < setup_.runtime.max_skipped_steps) return;
  if (session_.is_root()) write_event({{"event", "run_end"}, {"status", "failed"}, {"step", step_ + 1}});
  throw comm::CollectiveError(
      ErrorKind::kNumeric,
      fmt::format(
          "{} steps in a row had gradients that are not finite (runtime.max_skipped_steps); what was saved before "
          "stays. Lower the learning rate, or use frozen_dtype float32 or bfloat16",
          skipped_in_a_row_));
}

// All ranks agreed that a micro-batch did not fit: the state is still that of the last step boundary. The global batch
// stays, cut into smaller micro-batches, so the run goes on with the bits of one configured with the smaller size.
void Trainer::shrink_micro_batches() {
  loader_.reset();
  const int64_t global = setup_.batching.global_batch_size();
  int64_t smaller = setup_.batching.micro_batch_size / 2;
  while (smaller > 1 && global % smaller != 0) --smaller;
  if (smaller < 1) {
    throw comm::CollectiveError(
        ErrorKind::kDevice,
        "out of memory with a micro-batch of one sample: lower tokenizer_config.max_length, or use "
        "devices with more memory");
  }
  setup_.batching = {smaller, global / smaller};
  steps_ = std::make_unique<data::StepList>(setup_.train->lengths(), setup_.train->target_counts(),
                                            step_list_options(setup_));
  core::require(steps_->steps_per_epoch() == plan_.steps_per_epoch, ErrorKind::kInternal,
                "smaller micro-batches changed the steps of an epoch from {} to {}", plan_.steps_per_epoch,
                steps_->steps_per_epoch());
  if (session_.is_root()) {
    const std::string text =
        fmt::format("out of memory: going on from step {} with micro-batches of {} samples", step_, smaller);
    console_->warning(text);
    write_event({{"event", "warning"}, {"step", step_}, {"message", text}, {"micro_batch_size", smaller}});
  }
  start_loader();
}

void Trainer::start_loader() {
  loader_ = make_share_loader({.store = setup_.train,
                               .step_options = step_list_options(setup_),
                               .task = setup_.task,
                               .problem_type = setup_.problem_type,
                               .pad_id = setup_.pad_id,
                               .rank = session_.rank(),
                               .world_size = session_.size(),
                               .first_step = step_,
                               .total_steps = plan_.total_steps,
                               .prefetch_batches = static_cast<int>(setup_.runtime.prefetch_batches)});
}

comm::Watchdog::Guard Trainer::guard(const std::string& phase) {
  return setup_.watchdog->guard(phase, step_ + 1, static_cast<double>(setup_.runtime.peer_timeout_seconds));
}

void Trainer::check_replicas() {
  const auto hash = [](const at::Tensor& tensor, uint64_t seed) {
    const at::Tensor host = tensor.cpu();
    return core::xxh3(host.const_data_ptr(), static_cast<size_t>(host.nbytes()), seed);
  };
  const auto bounded = guard("comparing replicas");
  comm::require_equal_state(session_, hash(exp_avg_sq_, hash(exp_avg_, hash(params_, 0))), step_);
}

}  // namespace neoloom::train
