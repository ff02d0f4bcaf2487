// SPDX-License-Identifier: Apache-2.0
// What the trainer tells the outside: log lines, evaluations, checkpoints, the end of a run.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/checkpoint/directory.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/train/trainer.h"

namespace neoloom::train {
namespace {

using core::ErrorKind;
using nlohmann::ordered_json;

std::vector<float> to_host(const at::Tensor& tensor) {
  const at::Tensor host = tensor.cpu();
  const float* values = host.const_data_ptr<float>();
  return {values, values + host.numel()};
}

std::vector<metrics::DeviceMeasure> gather(comm::MpiSession& session, const metrics::DeviceMeasure& mine) {
  std::vector<metrics::DeviceMeasure> all;
  for (const std::string& text : session.all_gather(metrics::pack(mine))) all.push_back(metrics::unpack(text));
  return all;
}

}  // namespace

void Trainer::write_event(const ordered_json& event) {
  if (events_) events_->write(event);
}

double Trainer::seconds_left() const {
  const int64_t done = step_ - first_step_;
  if (done <= 0) return 0.0;
  return (core::now_seconds() - start_seconds_) / static_cast<double>(done) *
         static_cast<double>(plan_.total_steps - step_);
}

void Trainer::remember(const nlohmann::json& event) {
  if (!history_.empty()) history_ += ',';
  history_ += event.dump();
}

void Trainer::log_step() {
  const double now = core::now_seconds();
  since_log_.seconds = now - log_seconds_;
  since_log_.peak_memory_bytes = setup_.hooks.peak_memory_bytes();
  measure_sums();
  const std::vector<metrics::DeviceMeasure> devices = [&] {
    const auto bounded = guard("gathering throughput");
    return gather(session_, since_log_);
  }();
  const double loss = loss_since_log_ / static_cast<double>(steps_since_log_);
  remember({{"event", "train"},
            {"step", step_},
            {"loss", loss},
            {"grad_norm", last_result_.grad_norm},
            {"learning_rate", last_result_.learning_rate}});
  if (session_.is_root()) {
    int64_t samples = 0, tokens = 0, padded_tokens = 0;
    ordered_json rows = ordered_json::array();
    for (const metrics::DeviceMeasure& device : devices) {
      samples += device.samples;
      tokens += device.tokens;
      padded_tokens += device.padded_tokens;
      rows.push_back(metrics::device_json(device));
    }
    write_event({{"event", "train"},
                 {"step", step_},
                 {"epoch", plan_.epoch_after(step_)},
                 {"loss", loss},
                 {"grad_norm", last_result_.grad_norm},
                 {"learning_rate", last_result_.learning_rate},
                 {"samples", samples},
                 {"tokens", tokens},
                 {"padded_tokens", padded_tokens},
                 {"step_seconds", since_log_.seconds / static_cast<double>(std::max<int64_t>(1, steps_since_log_))},
                 {"devices", rows}});
    console_->step({.step = step_,
                    .total_steps = plan_.total_steps,
                    .epoch = plan_.epoch_after(step_),
                    .loss = loss,
                    .grad_norm = last_result_.grad_norm,
                    .learning_rate = last_result_.learning_rate,
                    .samples_per_s = static_cast<double>(samples) / since_log_.seconds,
                    .tokens_per_s = static_cast<double>(tokens) / since_log_.seconds,
                    .seconds_left = seconds_left()});
  }
  metrics::accumulate(since_log_, since_start_);
  metrics::DeviceMeasure fresh;
  fresh.rank = since_log_.rank;
  fresh.host = since_log_.host;
  fresh.device = since_log_.device;
  since_log_ = fresh;
  log_seconds_ = now;
  loss_since_log_ = 0.0;
  steps_since_log_ = 0;
}

// On a device, sums are waited for by the stream that computes, not by the host's clock: what the host took for
// computing holds the time that the stream stood still.
void Trainer::measure_sums() {
  const double exposed = communicator_.take_exposed_seconds();
  since_log_.exposed_sum_seconds += exposed;
  if (setup_.device != "cpu") {
    since_log_.comm_seconds += exposed;
    since_log_.compute_seconds = std::max(0.0, since_log_.compute_seconds - exposed);
  }
  const uint64_t bytes = communicator_.reduced_bytes();
  since_log_.summed_bytes += static_cast<int64_t>(bytes - std::exchange(bytes_before_log_, bytes));
}

void Trainer::evaluate_now() {
  const double start = core::now_seconds();
  const EvalResult result = evaluate(session_, model_, buffers_.params,
                                     {.store = setup_.validation,
                                      .task = setup_.task,
                                      .problem_type = setup_.problem_type,
                                      .batch_size = setup_.options.per_device_eval_batch_size,
                                      .pad_id = setup_.pad_id});
  const ordered_json values = result.json();
  nlohmann::json remembered = {{"event", "eval"}, {"step", step_}};
  remembered.update(nlohmann::json(values));
  remember(remembered);
  if (session_.is_root()) {
    ordered_json event = {{"event", "eval"}, {"step", step_}, {"epoch", plan_.epoch_after(step_)}};
    event.update(values);
    event["eval_runtime"] = result.seconds;
    event["eval_samples_per_second"] = static_cast<double>(result.samples) / result.seconds;
    write_event(event);
    std::string line = fmt::format("eval at step {}:", step_);
    for (const auto& [key, value] : values.items()) {
      if (value.is_number_float()) line += fmt::format("  {} {:.4f}", key, value.get<double>());
    }
    console_->notice(line);
  }
  keep_best(result);
  leave_out_of_throughput(start);
}

// Hugging Face: strictly better; ties keep the earlier one.
void Trainer::keep_best(const EvalResult& result) {
  const Options& options = setup_.options;
  std::string name = options.metric_for_best_model;
  if (name.rfind("eval_", 0) != 0) name = "eval_" + name;
  const ordered_json values = result.json();
  if (!values.contains(name)) {
    core::require(!options.load_best_model_at_end, ErrorKind::kUsage,
                  "trainer_config.metric_for_best_model: no metric {} here; there are: {}", name, values.dump());
    return;
  }
  const double value = values[name];
  const bool greater = options.greater_is_better.value_or(!name.ends_with("loss"));
  const bool better = best_step_ < 0 || (greater ? value > best_metric_ : value < best_metric_);
  if (!better || !std::isfinite(value)) return;
  best_metric_ = value;
  best_step_ = step_;
  if (options.load_best_model_at_end && session_.is_root()) {
    setup_.hooks.write_adapter(buffers_.params, options.output_dir + "/adapter-best");
  }
}

checkpoint::State Trainer::snapshot() const {
  checkpoint::State state;
  state.index = index_of(model_.layout());
  state.params = to_host(buffers_.params);
  state.exp_avg = to_host(buffers_.exp_avg);
  state.exp_avg_sq = to_host(buffers_.exp_avg_sq);
  state.step = step_;
  state.epoch = step_ / plan_.steps_per_epoch;
  state.step_in_epoch = step_ % plan_.steps_per_epoch;
  state.loss_scale = loss_scale_;
  state.good_steps = good_steps_;
  state.skipped_steps = skipped_steps_;
  state.best_metric = best_metric_;
  state.best_step = best_step_;
  state.config = setup_.config_yaml;
  state.identity = setup_.hooks.identity(setup_.batching);
  state.label_map = setup_.label_map_json;
  const nlohmann::json counters = {{"loss_since_log", loss_since_log_},
                                   {"steps_since_log", steps_since_log_},
                                   {"skipped_in_a_row", skipped_in_a_row_}};
  state.history = fmt::format("{{\"events\":[{}],{}", history_, counters.dump().substr(1));
  return state;
}

// A failure to save is no reason to stop: old checkpoints stay, training goes on, the next interval tries again.
void Trainer::save() {
  if (step_ == last_saved_step_) return;
  const double start = core::now_seconds();
  if (session_.is_root()) {
    try {
      const checkpoint::Directory directory(setup_.options.output_dir + "/checkpoints");
      const checkpoint::Published published = directory.publish(snapshot());
      directory.retain(setup_.options.save_total_limit, setup_.options.load_best_model_at_end ? best_step_ : -1);
      write_event({{"event", "checkpoint"},
                   {"step", step_},
                   {"path", published.path},
                   {"bytes", published.bytes},
                   {"seconds", published.seconds},
                   {"stall_seconds", core::now_seconds() - start}});
      last_saved_step_ = step_;
    } catch (const core::Error& error) {
      const std::string text = fmt::format("checkpoint of step {} was not saved: {}", step_, error.what());
      console_->warning(text);
      write_event({{"event", "warning"}, {"step", step_}, {"message", text}});
    }
  }
  leave_out_of_throughput(start);
}

void Trainer::leave_out_of_throughput(double since_seconds) { log_seconds_ += core::now_seconds() - since_seconds; }

void Trainer::write_final_adapter() {
  const std::string folder = setup_.options.output_dir + "/adapter";
  if (!setup_.options.load_best_model_at_end || best_step_ < 0 || best_step_ == step_) {
    setup_.hooks.write_adapter(buffers_.params, folder);
    return;
  }
  const checkpoint::State state =
      checkpoint::load(setup_.options.output_dir + "/checkpoints/" + checkpoint::file_name(best_step_));
  const at::Tensor best = at::empty({static_cast<int64_t>(state.params.size())}, at::kFloat);
  std::copy(state.params.begin(), state.params.end(), best.mutable_data_ptr<float>());
  setup_.hooks.write_adapter(best, folder);
  console_->notice(fmt::format("adapter/ holds the best model: step {}, {} {:.4f}", best_step_,
                               setup_.options.metric_for_best_model, best_metric_));
}

void Trainer::finish(RunStatus status) {
  const double seconds = start_seconds_ > 0.0 ? core::now_seconds() - start_seconds_ : 0.0;
  if (start_seconds_ > 0.0) since_log_.seconds = core::now_seconds() - log_seconds_;
  measure_sums();
  metrics::accumulate(since_log_, since_start_);
  since_start_.peak_memory_bytes = std::max(since_start_.peak_memory_bytes, setup_.hooks.peak_memory_bytes());
  const std::vector<metrics::DeviceMeasure> devices = gather(session_, since_start_);
  session_.on_root([&]() -> std::string {
    console_->finish();
    if (status == RunStatus::kCompleted) write_final_adapter();
    if (step_ > first_step_) {
      int64_t samples = 0, tokens = 0;
      for (const metrics::DeviceMeasure& device : devices) {
        samples += device.samples;
        tokens += device.tokens;
      }
      write_event({{"event", "run_end"},
                   {"status", status == RunStatus::kCompleted ? "completed" : "stopped"},
                   {"step", step_},
                   {"train_runtime", seconds},
                   {"train_samples_per_second", static_cast<double>(samples) / seconds},
                   {"train_tokens_per_second", static_cast<double>(tokens) / seconds}});
      console_->notice(metrics::device_table(devices));
    } else {
      write_event({{"event", "run_end"}, {"status", "completed"}, {"step", step_}, {"train_runtime", 0.0}});
    }
    if (status == RunStatus::kStopped) {
      console_->notice(
          fmt::format("stopped on request at step {} of {}; the same command resumes", step_, plan_.total_steps));
    }
    return "";
  });
}

}  // namespace neoloom::train
