// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/trainer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Device.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <utility>

#include "runtime/comm/collective_error.h"
#include "runtime/comm/fingerprint.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/hash.h"
#include "runtime/core/json.h"
#include "runtime/train/batches.h"

namespace neoloom::train {
namespace {

using core::ErrorKind;
using nlohmann::ordered_json;

// A step in which peers that live keep others waiting may take this many times as long as the longest so far.
constexpr double kLongestStepFactor = 10.0;
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

optim::FlatBuffers zero_buffers(int64_t n_elements, const std::string& device) {
  const auto zeros = [&] {
    return at::zeros({n_elements}, at::TensorOptions().dtype(at::kFloat).device(c10::Device(device)));
  };
  return {zeros(), zeros(), zeros(), zeros()};
}

// Bytes that a bucket of the gradient sum holds at least. On CPUs sums stay whole unless asked otherwise: MPI makes
// progress inside of its calls only.
int64_t bucket_bytes(const TrainerSetup& setup, int ranks, int64_t buffer_bytes) {
  if (setup.runtime.bucket_bytes > 0) return setup.runtime.bucket_bytes;
  return setup.device == "cpu" || ranks == 1 ? buffer_bytes : automatic_bucket_bytes(buffer_bytes);
}

BucketedSum make_sum(const TrainerSetup& setup, int ranks, const model::ParameterLayout& layout,
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

void from_host(const std::vector<float>& values, at::Tensor& tensor) {
  at::Tensor host = at::empty({static_cast<int64_t>(values.size())}, at::kFloat);
  std::copy(values.begin(), values.end(), host.mutable_data_ptr<float>());
  tensor.copy_(host);
}

// World size of the last run_start in an event log; 0 when there is none.
int64_t last_world_size(const std::string& path) {
  std::error_code unknown;
  if (!std::filesystem::is_regular_file(path, unknown)) return 0;
  std::ifstream file(path);
  int64_t world_size = 0;
  for (std::string line; std::getline(file, line);) {
    if (!core::json_excess(line).empty()) continue;
    const nlohmann::json event = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (event.is_object() && event.value("event", "") == "run_start")
      world_size = event.value("world_size", int64_t{0});
  }
  return world_size;
}

}  // namespace

Trainer::Trainer(comm::MpiSession& session, comm::Communicator& communicator, model::Model& model, TrainerSetup setup,
                 std::optional<Resumed> resumed)
    : session_(session),
      communicator_(communicator),
      model_(model),
      setup_(std::move(setup)),
      buffers_(zero_buffers(model.layout().total_elements, setup_.device)),
      loss_scale_(setup_.initial_loss_scale),
      sum_(make_sum(setup_, session.size(), model.layout(), communicator)) {
  steps_ = std::make_unique<data::StepList>(setup_.train->lengths(), setup_.train->target_counts(),
                                            step_list_options(setup_));
  schedule_ = resolve_plan(setup_.options, steps_->steps_per_epoch());
  best_ = BestModel(judge_of(setup_.options, setup_.validation ? setup_.validation->content_hash() : ""),
                    session_.is_root() && setup_.options.load_best_model_at_end);
  if (resumed) {
    restore(*resumed);
  } else {
    model_.initialize(buffers_.params, static_cast<uint64_t>(setup_.options.seed));
    if (setup_.initial_values.defined()) buffers_.params.copy_(setup_.initial_values);
  }
  first_step_ = logged_step_ = step_;
  make_update();
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
  from_host(state.params, buffers_.params);
  from_host(state.exp_avg, buffers_.exp_avg);
  from_host(state.exp_avg_sq, buffers_.exp_avg_sq);
  step_ = last_saved_step_ = state.step;
  skipped_steps_ = state.skipped_steps;
  good_steps_ = state.good_steps;
  loss_scale_ = state.loss_scale;
  const auto history = core::parse_json(state.history, "the checkpoint's history", ErrorKind::kCheckpoint);
  try {
    for (const nlohmann::json& event : history.at("events")) remember(event);
    loss_since_log_ = history.at("loss_since_log");
    steps_since_log_ = history.at("steps_since_log");
    skipped_in_a_row_ = history.at("skipped_in_a_row");
  } catch (const nlohmann::json::exception& error) {
    core::fail(ErrorKind::kCheckpoint, "the checkpoint's history is not what a run writes: {}",
               core::json_complaint(error));
  }
}

void Trainer::make_update() {
  UpdateSetup setup{.ranges = decay_ranges(model_.layout()),
                    .adamw = {.beta1 = setup_.options.adam_beta1,
                              .beta2 = setup_.options.adam_beta2,
                              .epsilon = setup_.options.adam_epsilon,
                              .weight_decay = setup_.options.weight_decay},
                    .max_grad_norm = setup_.options.max_grad_norm,
                    .learning_rate = setup_.options.learning_rate,
                    .schedule = optim::schedule_from_name(setup_.options.lr_scheduler_type),
                    .warmup_steps = schedule_.warmup_steps,
                    .total_steps = schedule_.total_steps,
                    .updates_done = step_ - skipped_steps_};
  update_ = setup_.device_step
                ? make_device_update(std::move(setup), setup_.hooks.device_reads, buffers_.params.device())
                : make_host_update(std::move(setup));
}

void Trainer::announce(const std::optional<Resumed>& resumed) {
  if (!session_.is_root()) return;
  const model::ParameterLayout& layout = model_.layout();
  ordered_json event = {{"event", "run_start"},
                        {"world_size", session_.size()},
                        {"micro_batch_size", setup_.batching.micro_batch_size},
                        {"micro_batches_per_step", setup_.batching.micro_batches_per_step},
                        {"global_batch_size", setup_.batching.global_batch_size()},
                        {"steps_per_epoch", schedule_.steps_per_epoch},
                        {"total_steps", schedule_.total_steps},
                        {"warmup_steps", schedule_.warmup_steps},
                        {"trainable_parameters", layout.trainable_elements},
                        {"allreduce_bytes_per_step", sum_.sum().bytes()},
                        {"allreduce_buckets", sum_.buckets()},
                        {"seed", setup_.options.seed}};
  event.update(setup_.run_start);
  write_event(event);
  console_->notice(fmt::format(
      "training {} samples: {} steps of {} ({} an epoch), {} trainable parameters, {} bytes all-reduced a step",
      setup_.train->size(), schedule_.total_steps, setup_.batching.global_batch_size(), schedule_.steps_per_epoch,
      layout.trainable_elements, sum_.sum().bytes()));
  if (!resumed) return;
  for (const std::string& skipped : resumed->skipped) warn("checkpoint skipped: " + skipped);
  console_->notice(fmt::format("resuming {} at step {} of {}", resumed->path, step_, schedule_.total_steps));
  write_event(
      {{"event", "resume"}, {"step", step_}, {"path", resumed->path}, {"world_size_before", world_size_before_}});
  const std::string forgotten = best_.restore(resumed->state, core::parent_directory(resumed->path));
  if (!forgotten.empty() && setup_.options.load_best_model_at_end) warn(forgotten);
  // Written by an earlier start: the folders may be of another step, the file of other free keys.
  if (!best_.params().empty() && step_ < schedule_.total_steps) best_folder_.due();
  config_file_.due();
  write_side_products();
}

RunStatus Trainer::run() {
  const auto phase = session_.phase("training");
  if (step_ >= schedule_.total_steps) {
    if (session_.is_root()) {
      console_->notice(fmt::format("this run is complete: {} of {} steps", step_, schedule_.total_steps));
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
  while (step_ < schedule_.total_steps) {
    const double step_start = core::now_seconds();
    const StepFlags flags = run_step();
    if (flags.out_of_memory) {
      steps_alike_ = false;
      shrink_micro_batches();
      continue;
    }
    ++step_;
    session_.mark(step_);
    take_results(needs_results(flags) ? 0 : 1);
    longest_step_seconds_ = std::max(longest_step_seconds_, core::now_seconds() - step_start);
    steps_alike_ = true;
    if (schedule_.logs_after(step_, setup_.options.logging_first_step)) log_step();
    if (session_.is_root()) console_->tick(step_, schedule_.total_steps, seconds_left());
    if (setup_.validation && schedule_.evaluates_after(step_)) evaluate_now();
    if (checks_replicas()) check_replicas();
    if (schedule_.saves_after(step_) || flags.stop) save();
    if (flags.stop && step_ < schedule_.total_steps) {
      finish(RunStatus::kStopped);
      return RunStatus::kStopped;
    }
  }
  finish(RunStatus::kCompleted);
  return RunStatus::kCompleted;
}

bool Trainer::checks_replicas() const {
  return setup_.runtime.state_check_steps > 0 && step_ % setup_.runtime.state_check_steps == 0;
}

// Whether something after this step depends on its results, or on those of all steps before.
bool Trainer::needs_results(const StepFlags& flags) const {
  const bool reads_late = setup_.device_step && setup_.initial_loss_scale <= 1.0;
  return !reads_late || flags.stop || step_ == schedule_.total_steps || checks_replicas() ||
         schedule_.saves_after(step_) || schedule_.evaluates_after(step_) ||
         schedule_.logs_after(step_, setup_.options.logging_first_step);
}

// Takes results, oldest first, until those of `left` steps are under way. Every rank takes the same ones at the same
// step, so all see too many skipped steps together.
void Trainer::take_results(size_t left) {
  if (update_->pending() <= left) return;
  const core::ScopedTimer timer(since_log_.compute_seconds);
  const auto bounded = guard("waiting for the device");
  while (update_->pending() > left) note(update_->take([this] { communicator_.check(); }));
}

void Trainer::note(const StepResult& result) {
  if (result.skipped) {
    note_skipped_step(result.step);
  } else {
    skipped_in_a_row_ = 0;
    if (setup_.initial_loss_scale > 1.0 && ++good_steps_ >= kLossScaleGrowthSteps) {
      loss_scale_ = std::min(2.0 * loss_scale_, kLargestLossScale);
      good_steps_ = 0;
    }
  }
  last_result_ = result;
  if (result.target_count == 0) return note_step_without_target(result.step);
  loss_since_log_ += result.loss;
  ++steps_since_log_;
}

void Trainer::note_step_without_target(int64_t step) {
  if (std::exchange(told_of_step_without_target_, true)) return;
  warn_of(
      step,
      fmt::format("step {}: none of its rows has a token to learn, so it has no loss; further such steps are not named",
                  step));
}

void Trainer::note_skipped_step(int64_t step) {
  ++skipped_steps_;
  ++skipped_in_a_row_;
  good_steps_ = 0;
  if (setup_.initial_loss_scale > 1.0) loss_scale_ = std::max(1.0, loss_scale_ / 2.0);
  warn_of(step, fmt::format("step {}: gradients are not finite; the update is skipped", step));
  if (skipped_in_a_row_ < setup_.runtime.max_skipped_steps) return;
  if (session_.is_root()) write_event({{"event", "run_end"}, {"status", "failed"}, {"step", step}});
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
  core::require(steps_->steps_per_epoch() == schedule_.steps_per_epoch, ErrorKind::kInternal,
                "smaller micro-batches changed the steps of an epoch from {} to {}", schedule_.steps_per_epoch,
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
                               .total_steps = schedule_.total_steps,
                               .prefetch_batches = static_cast<int>(setup_.runtime.prefetch_batches)});
}

comm::Watchdog::Guard Trainer::guard(const std::string& phase) {
  const double timeout = session_.peer_timeout_seconds();
  const double deadline = steps_alike_ ? std::max(timeout, kLongestStepFactor * longest_step_seconds_)
                                       : static_cast<double>(comm::MpiSession::kWork) * timeout;
  return session_.guard(phase, step_ + 1, deadline);
}

void Trainer::check_replicas() {
  const auto hash = [](const at::Tensor& tensor, uint64_t seed) {
    const at::Tensor host = tensor.cpu();
    return core::xxh3(host.const_data_ptr(), static_cast<size_t>(host.nbytes()), seed);
  };
  const auto bounded = guard("comparing replicas");
  const uint64_t state = hash(buffers_.exp_avg_sq, hash(buffers_.exp_avg, hash(buffers_.params, 0)));
  comm::require_equal_state(session_, state, step_);
}

}  // namespace neoloom::train
