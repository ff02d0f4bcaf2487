// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/trainer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "data/batching/step_list.h"
#include "runtime/comm/collective_error.h"
#include "runtime/comm/fingerprint.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/json.h"
#include "runtime/train/calibrator.h"
#include "runtime/train/evaluator.h"
#include "runtime/train/token_budget.h"

namespace neoloom::train {
namespace {

using core::ErrorKind;
using nlohmann::ordered_json;

// Live peers may keep others waiting for this many times the longest step so far.
constexpr double kLongestStepFactor = 10.0;

/// Tells the hook when the enqueueing of a step begins, and when it ends, by an exception or not.
class EnqueuedStep {
 public:
  explicit EnqueuedStep(const Hooks& hooks) : hooks_(hooks) { tell(true); }
  ~EnqueuedStep() { tell(false); }
  EnqueuedStep(const EnqueuedStep&) = delete;
  EnqueuedStep& operator=(const EnqueuedStep&) = delete;

 private:
  void tell(bool begins) const {
    if (hooks_.enqueues_step) hooks_.enqueues_step(begins);
  }
  const Hooks& hooks_;
};

}  // namespace

Trainer::Trainer(comm::MpiSession& session, comm::Communicator& communicator, model::Model& model, TrainerSetup setup,
                 const std::optional<Resumed>& resumed)
    : session_(session),
      model_(model),
      setup_(std::move(setup)),
      schedule_(
          resolve_schedule(setup_.options, data::steps_per_epoch(setup_.train->packs(), step_list_options(setup_)))),
      best_(judge_of(setup_), session.is_root() && setup_.options.load_best_model_at_end),
      early_stopping_(setup_.options.early_stopping_patience, setup_.options.early_stopping_threshold),
      state_(make_state(setup_, model, resumed)),
      first_step_(state_.step),
      reporter_(communicator, {.output_dir = setup_.options.output_dir,
                               .progress = setup_.progress,
                               .log_level = session.log().level(),
                               .self = {.rank = session.rank(), .host = session.host_name(), .device = setup_.device},
                               .limit = setup_.limit,
                               .first_step = first_step_,
                               .total_steps = schedule_.total_steps,
                               .peak_memory_bytes = setup_.hooks.peak_memory_bytes,
                               .gather = [this](const std::string& mine) { return session_.all_gather(mine); },
                               .report_to = setup_.options.report_to,
                               .logging_dir = setup_.options.logging_dir,
                               .config_text = setup_.config_file,
                               .run_ended = setup_.hooks.run_ended,
                               .decode = setup_.hooks.decode,
                               .guard = [this] { return guard("gathering throughput"); }}),
      writer_({.output_dir = setup_.options.output_dir,
               .result_folder = setup_.result_folder,
               .config_file = setup_.config_file,
               .save_total_limit = setup_.options.save_total_limit,
               .keeps_best = setup_.options.load_best_model_at_end,
               .total_steps = schedule_.total_steps,
               .write_adapter =
                   [this](const at::Tensor& params, const std::string& folder, int64_t step) {
                     const bool result = folder == setup_.options.output_dir + "/" + setup_.result_folder;
                     setup_.hooks.write_adapter(params, folder, step, state_.history.evaluation_before(step),
                                                result && !calibration_.is_null() ? calibration_.dump(2) + "\n" : "");
                   }},
              reporter_, best_),
      runner_(model, make_reducer(setup_, session.size(), model.layout(), communicator),
              make_update(setup_, schedule_, model.layout(), state_),
              {.seed = static_cast<uint64_t>(setup_.options.seed),
               .steps_per_epoch = schedule_.steps_per_epoch,
               .survives_lack_of_memory = setup_.options.auto_find_batch_size,
               .guard = [this](const std::string& phase) { return guard(phase); },
               .while_waiting = [&communicator] { communicator.check(); },
               .run_micro_step = setup_.hooks.run_micro_step,
               .before_micro_batch = setup_.hooks.before_micro_batch}),
      profiler_({.first = setup_.runtime.profile_from_step,
                 .count = setup_.runtime.profile_steps,
                 .cuda = setup_.device != "cpu",
                 .path = fmt::format("{}/profile/step-{}-rank-{}.json", setup_.options.output_dir,
                                     setup_.runtime.profile_from_step, session.rank())}) {
  if (resumed) writer_.resumed_at(state_.step);
  check_replicas();
  announce(resumed);
}

void Trainer::announce(const std::optional<Resumed>& resumed) {
  if (!reporter_.writes()) return;
  const GradientSum& sum = runner_.reducer().sum();
  ordered_json event = {{"event", "run_start"}, {"world_size", session_.size()}};
  event.update(facts_of_start(setup_, schedule_, model_.layout().trainable_elements));
  event["allreduce_bytes_per_step"] = sum.bytes();
  event["allreduce_buckets"] = runner_.reducer().buckets();
  event.update(setup_.run_start);
  reporter_.event(event);
  std::string waste = idle_ranks_warning(setup_.batching, setup_.train->packs(), session_.size());
  if (setup_.batching.max_tokens > 0) {
    const BudgetUse use = measure_budget_use(*setup_.train, setup_.options, setup_.batching);
    reporter_.notice(describe(use));
    waste = warning_of(use, session_.size());
  }
  if (!waste.empty()) warn(waste);
  reporter_.detail(fmt::format("{} trainable parameters, {} bytes all-reduced per step",
                               model_.layout().trainable_elements, sum.bytes()));
  if (!resumed) return;
  for (const std::string& skipped : resumed->skipped) warn("checkpoint skipped: " + skipped);
  reporter_.notice(fmt::format("resuming {} at step {} of {}", resumed->path, state_.step, schedule_.total_steps));
  reporter_.event({{"event", "resume"},
                   {"step", state_.step},
                   {"path", resumed->path},
                   {"world_size_before", reporter_.world_size_before()}});
  const std::string forgotten = best_.restore(resumed->state, core::parent_directory(resumed->path));
  if (forgotten.empty()) {
    early_stopping_.restore(
        core::parse_json(resumed->state.history, "the checkpoint's history", ErrorKind::kCheckpoint));
  } else if (setup_.options.compares_evaluations()) {
    warn(forgotten);
  }
  // An earlier start wrote these: the adapter may be that of another step, the configuration may have other free keys.
  if (!best_.params().empty() && state_.step < schedule_.total_steps) writer_.best_is_due();
  writer_.config_is_due();
  writer_.write_side_products(state_.step);
}

RunStatus Trainer::run() {
  const auto phase = session_.phase("training");
  if (is_complete()) {
    reporter_.result(fmt::format("this run is complete: {} of {} steps", state_.step, schedule_.total_steps));
    finish(RunStatus::kCompleted);
    return RunStatus::kCompleted;
  }
  if (state_.step == 0 && setup_.options.eval_on_start) evaluate_now();
  start_loader();
  reporter_.detail(
      fmt::format("the first step begins {:.2f} s after the start of the process", core::process_age_seconds()));
  reporter_.start();
  while (state_.step < schedule_.total_steps) {
    const double step_start = core::now_seconds();
    profiler_.before(state_.step + 1);
    const StepFlags flags = run_step();
    if (flags.out_of_memory) {
      steps_alike_ = false;
      shrink_micro_batches();
      continue;
    }
    ++state_.step;
    session_.mark(state_.step);
    take_results(needs_results(flags) ? 0 : 1);
    longest_step_seconds_ = std::max(longest_step_seconds_, core::now_seconds() - step_start);
    steps_alike_ = true;
    end_profile();
    if (logs_now()) log();
    reporter_.tick(state_.step);
    Verdict verdict;
    if (!setup_.validation.empty() && schedule_.evaluates_after(state_.step)) verdict = judge(evaluate_now());
    if (verdict.stop && schedule_.logging_steps > 0 && !logs_now()) log();
    if (checks_replicas()) check_replicas();
    if (schedule_.saves_after(state_.step) || flags.stop || verdict.save || verdict.stop) save();
    if (verdict.stop) break;
    if (flags.stop && state_.step < schedule_.total_steps) {
      finish(RunStatus::kStopped);
      return RunStatus::kStopped;
    }
  }
  finish(RunStatus::kCompleted);
  return RunStatus::kCompleted;
}

void Trainer::end_profile() {
  const double start = core::now_seconds();
  const std::string text = profiler_.after(state_.step);
  if (text.empty()) return;
  reporter_.notice(text);
  did_something_else(start);
}

Trainer::StepFlags Trainer::run_step() {
  const EnqueuedStep enqueued(setup_.hooks);
  metrics::DeviceMeasure& measure = reporter_.measure();
  const bool fitted = runner_.compute(*loader_, state_, measure);
  const StepFlags flags = agree({.out_of_memory = !fitted, .stop = setup_.hooks.stop_requested()});
  if (flags.out_of_memory) {
    runner_.abandon(measure);
  } else {
    runner_.sum_over_ranks(measure);
    runner_.update(state_, measure);
  }
  return flags;
}

// Makes all ranks take the same path, whatever one of them saw, by one small all-reduce a step.
Trainer::StepFlags Trainer::agree(StepFlags mine) {
  const core::ScopedTimer timer(reporter_.measure().comm_seconds);
  const auto bounded = guard("agreeing on flags");
  std::array<int64_t, 2> word = {mine.out_of_memory, mine.stop};
  session_.all_reduce_max(word);
  return {.out_of_memory = word[0] != 0, .stop = word[1] != 0};
}

bool Trainer::checks_replicas() const {
  return setup_.runtime.state_check_steps > 0 && state_.step % setup_.runtime.state_check_steps == 0;
}

// Returns whether something after this step depends on its results, or on those of all steps before.
bool Trainer::needs_results(const StepFlags& flags) const {
  const bool reads_late = setup_.device_step && !state_.loss_scale.moves() && !state_.spikes.given();
  return !reads_late || flags.stop || state_.step == schedule_.total_steps || checks_replicas() ||
         schedule_.saves_after(state_.step) || schedule_.evaluates_after(state_.step) || logs_now();
}

void Trainer::take_results(size_t left) {
  if (runner_.pending() <= left) return;
  const core::ScopedTimer timer(reporter_.measure().compute_seconds);
  const auto bounded = guard("waiting for the device");
  while (runner_.pending() > left) note(runner_.take_result());
}

void Trainer::note(const StepResult& result) {
  const bool searches = state_.loss_scale.moves() && state_.loss_scale.value() > 1.0;
  if (result.spiked) reporter_.warn(result.step, state_.spikes.describe(result));
  state_.note(result);
  last_result_ = result;
  if (result.skipped) note_skipped_step(result.step, searches);
  if (state_.spikes.given() && state_.spikes.too_many()) {
    end_for_numbers(result.step,
                    fmt::format("{} steps in a row had a loss far above those before, although no update was made "
                                "(trainer_config.loss_spike_policy): not single rows, but the parameters or the data "
                                "have changed; earlier checkpoints are kept. Lower the learning rate and resume from "
                                "one of them (--resume PATH), or raise z_score",
                                state_.spikes.in_a_row()));
  }
  if (result.target_weight > 0 || std::exchange(told_of_step_without_target_, true)) return;
  reporter_.warn(result.step, fmt::format("step {}: none of its rows has a token to train on, so it has no loss; "
                                          "later steps like it are not reported",
                                          result.step));
}

void Trainer::note_skipped_step(int64_t step, bool searches) {
  reporter_.warn(step, fmt::format("step {}: gradients are not finite; the update is skipped", step));
  const NonFinitePolicy& policy = setup_.options.non_finite_policy;
  if (state_.skipped_in_a_row < policy.most_skipped || (policy.aborts() && searches)) return;
  end_for_numbers(step,
                  fmt::format("{} had gradients that are not finite (trainer_config.non_finite_policy); "
                              "earlier checkpoints are kept. Lower the learning rate, or use frozen_dtype "
                              "float32 or bfloat16",
                              policy.aborts() ? "a step" : fmt::format("{} steps in a row", state_.skipped_in_a_row)));
}

void Trainer::end_for_numbers(int64_t step, const std::string& why) {
  reporter_.run_end("failed", step, end_of_run());
  throw comm::CollectiveError(ErrorKind::kNumeric, why);
}

// Goes on after all ranks agreed that a micro-batch did not fit. The state is still that after the last step. The
// global batch keeps its size and is cut into smaller micro-batches, so the bits are those of a run configured with
// that smaller size from here on.
void Trainer::shrink_micro_batches() {
  loader_.reset();
  setup_.batching = smaller_micro_batches(setup_.batching, *setup_.train);
  const Batching& smaller = setup_.batching;
  const int64_t steps_per_epoch = data::steps_per_epoch(setup_.train->packs(), step_list_options(setup_));
  core::require(steps_per_epoch == schedule_.steps_per_epoch, ErrorKind::kInternal,
                "smaller micro-batches changed the steps per epoch from {} to {}", schedule_.steps_per_epoch,
                steps_per_epoch);
  const bool by_tokens = smaller.max_tokens > 0;
  reporter_.warn(state_.step,
                 fmt::format("out of memory: continuing from step {} with micro-batches of {}", state_.step,
                             by_tokens ? fmt::format("at most {} tokens", smaller.max_tokens)
                                       : fmt::format("{} samples", smaller.micro_batch_size)),
                 by_tokens ? ordered_json{{"max_tokens_per_micro_batch", smaller.max_tokens}}
                           : ordered_json{{"micro_batch_size", smaller.micro_batch_size}});
  start_loader();
}

void Trainer::start_loader() {
  loader_ = std::make_unique<MicroBatchLoader>(LoaderSetup{
      .store = setup_.train,
      .step_options = step_list_options(setup_),
      .task = model_.setup().head,
      .class_weights = setup_.class_weights,
      .pad_id = setup_.pad_id,
      .rank = session_.rank(),
      .world_size = session_.size(),
      .first_step = state_.step,
      .total_steps = schedule_.total_steps,
      .prefetch_batches = static_cast<int>(setup_.runtime.prefetch_batches),
      .pack = [this](const model::Batch& batch) { return model_.pack(batch, state_.buffers.params.device()); }});
}

void Trainer::log() {
  const double loss = state_.history.mean_loss();
  state_.history.remember({{"event", "train"},
                           {"step", state_.step},
                           {"loss", loss},
                           {"grad_norm", last_result_.grad_norm},
                           {"learning_rate", last_result_.learning_rate}});
  state_.history.reset();
  reporter_.log({.step = state_.step,
                 .epoch = schedule_.epoch_after(state_.step),
                 .loss = loss,
                 .grad_norm = last_result_.grad_norm,
                 .learning_rate = last_result_.learning_rate});
  if (setup_.hooks.histograms && reporter_.draws_histograms())
    reporter_.histograms(state_.step, setup_.hooks.histograms(state_.buffers.params));
}

ordered_json Trainer::evaluate_now() {
  const double start = core::now_seconds();
  ordered_json values = ordered_json::object();
  for (const ValidationSet& set : setup_.validation) values.update(evaluate_on(set));
  did_something_else(start);
  return values;
}

EvalRequest Trainer::request_for(const ValidationSet& set, const std::string& what) {
  return {.store = set.store,
          .batch_size = setup_.options.per_device_eval_batch_size,
          .pad_id = setup_.pad_id,
          .progress = reporter_.begin_work(what, "rows")};
}

ordered_json Trainer::evaluate_on(const ValidationSet& set) {
  const EvalResult result = evaluate(session_, model_, state_.buffers.params, request_for(set, "evaluating"));
  ordered_json values = for_set(set.name, result.json());
  nlohmann::json remembered = {{"event", "eval"}, {"step", state_.step}};
  remembered.update(nlohmann::json(values));
  state_.history.remember(remembered);
  if (reporter_.writes()) {
    reporter_.evaluated({.step = state_.step,
                         .epoch = schedule_.epoch_after(state_.step),
                         .set = set.name,
                         .result = result,
                         .values = values,
                         .store = *set.store,
                         .judge = best_.judge().metric});
  }
  return values;
}

// Rank 0 decides, since it alone has the best model so far.
Trainer::Verdict Trainer::judge(const ordered_json& values) {
  const double start = core::now_seconds();
  Verdict verdict;
  if (session_.is_root()) {
    early_stopping_.note(judged_value(best_.judge(), values), best_);
    const bool best = best_.consider(state_.step, values, state_.buffers.params);
    if (best && setup_.options.load_best_model_at_end) writer_.best_is_due();
    writer_.write_side_products(state_.step);
    verdict = {.save = best && setup_.options.save_strategy == Interval::kBest, .stop = early_stopping_.stops()};
  }
  session_.broadcast(&verdict, sizeof verdict);
  if (state_.metric_schedule) adapt_learning_rate(judged_value(best_.judge(), values));
  did_something_else(start);
  return verdict;
}

// All ranks take rank 0's value: nodes of unlike CPUs may round a metric differently.
void Trainer::adapt_learning_rate(double value) {
  optim::MetricSchedule& schedule = *state_.metric_schedule;
  const double before = schedule.learning_rate();
  session_.broadcast(&value, sizeof value);
  schedule.step(value);
  if (schedule.learning_rate() == before) return;
  runner_.rate_changed();
  reporter_.notice(
      fmt::format("learning rate {:.4g} -> {:.4g}, by {}", before, schedule.learning_rate(), best_.judge().metric));
}

bool Trainer::is_complete() {
  bool complete = state_.step >= schedule_.total_steps || early_stopping_.stops();
  session_.broadcast(&complete, sizeof complete);
  return complete;
}

// Returns what the run_end event says beside the step.
ordered_json Trainer::end_of_run() const {
  ordered_json end = ordered_json::object();
  if (state_.step < schedule_.total_steps && early_stopping_.stops()) end["reason"] = early_stopping_.reason(best_);
  if (state_.skipped_steps > 0) end["skipped_steps"] = state_.skipped_steps;
  if (!calibration_.is_null()) end["calibration"] = calibration_;
  if (state_.spikes.given()) end["loss_spikes"] = state_.spikes.count();
  return end;
}

checkpoint::State Trainer::snapshot() const {
  checkpoint::State state =
      state_.to_checkpoint(model_.layout(), schedule_.steps_per_epoch,
                           {{"best_judge", best_.judge_json()}, {"early_stopping", early_stopping_.json()}});
  best_.store(state);
  state.config = setup_.config_yaml;
  state.identity = setup_.hooks.identity(setup_.batching);
  state.label_map = setup_.label_map_json;
  return state;
}

void Trainer::save() {
  if (writer_.is_saved(state_.step)) return;
  const auto phase = session_.phase("saving a checkpoint");
  const double start = core::now_seconds();
  if (session_.is_root()) writer_.save(state_.step, [this] { return snapshot(); });
  did_something_else(start);
}

void Trainer::did_something_else(double since_seconds) {
  reporter_.leave_out_of_throughput(since_seconds);
  steps_alike_ = false;
}

void Trainer::finish(RunStatus status) {
  const auto phase = session_.phase("publishing the result");
  const bool completed = status == RunStatus::kCompleted;
  if (completed && setup_.options.calibrate) calibrate_result();
  reporter_.finish();
  if (completed) require_updates();
  session_.run_on_root([&]() -> std::string {
    writer_.write_side_products(state_.step);
    if (completed && end_of_run().contains("reason")) {
      reporter_.notice(fmt::format("{}; the run ends at step {} of {}. A larger early_stopping_patience continues it",
                                   early_stopping_.reason(best_), state_.step, schedule_.total_steps));
    }
    const std::string problem =
        completed ? writer_.write_result(state_.buffers.params, state_.step, /*fresh=*/state_.step > first_step_)
                  : writer_.unsaved_stop(state_.step);
    reporter_.run_end(!problem.empty() ? "failed" : completed ? "completed" : "stopped", state_.step, end_of_run());
    core::require(problem.empty(), ErrorKind::kOutput, "{}", problem);
    if (completed && state_.step > first_step_) {
      reporter_.result(writer_.done(state_.step));
    } else if (!completed) {
      reporter_.result(fmt::format("stopped on request at step {} of {}; the same command resumes", state_.step,
                                   schedule_.total_steps));
    }
    return "";
  });
}

void Trainer::calibrate_result() {
  const double start = core::now_seconds();
  const at::Tensor params =
      result_params(session_, best_, setup_.options.load_best_model_at_end, state_.step, state_.buffers.params);
  Calibrated made = calibrate(session_, model_, params, request_for(setup_.validation.front(), "calibrating"));
  did_something_else(start);
  if (!session_.is_root()) return;
  calibration_ = std::move(made.values);
  if (made.warns) return warn(made.text);
  reporter_.notice(made.text);
}

// Fails a run without any update: it has learnt nothing, and its adapter would not show that.
void Trainer::require_updates() {
  if (state_.skipped_in_a_row == 0) return;
  if (state_.skipped_steps < state_.step) {
    warn(
        fmt::format("the last {} of {} steps made no update, because their gradients were not finite: "
                    "the result is the state of step {}",
                    state_.skipped_in_a_row, state_.step, state_.step - state_.skipped_in_a_row));
    return;
  }
  end_for_numbers(
      state_.step,
      fmt::format(
          "none of the {} steps made an update, because no gradient was finite: nothing was learnt, "
          "and no adapter is written. Lower the learning rate, use frozen_dtype float32 or bfloat16, "
          "check the weights (runtime.verify_weights: always), and start again in another trainer_config.output_dir",
          state_.step));
}

comm::Watchdog::Guard Trainer::guard(const std::string& phase) {
  const double timeout = session_.peer_timeout_seconds();
  const double deadline = steps_alike_ ? std::max(timeout, kLongestStepFactor * longest_step_seconds_)
                                       : static_cast<double>(comm::MpiSession::kWork) * timeout;
  return session_.guard(phase, state_.step + 1, deadline);
}

void Trainer::check_replicas() {
  const auto bounded = guard("comparing replicas");
  comm::require_equal_state(session_, state_.hash(), state_.step);
}

}  // namespace neoloom::train
