// SPDX-License-Identifier: Apache-2.0
// What the trainer tells the outside on its way: log lines, evaluations, checkpoints.
#include <algorithm>
#include <filesystem>
#include <utility>

#include "runtime/checkpoint/directory.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
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

}  // namespace

void Trainer::write_event(const ordered_json& event) {
  if (events_) events_->write(event);
}

void Trainer::warn_of(int64_t step, const std::string& text) {
  if (!session_.is_root()) return;
  console_->warning(text);
  write_event({{"event", "warning"}, {"step", step}, {"message", text}});
}

double Trainer::seconds_left() const {
  const int64_t done = step_ - first_step_;
  if (done <= 0) return 0.0;
  return (core::now_seconds() - start_seconds_) / static_cast<double>(done) *
         static_cast<double>(schedule_.total_steps - step_);
}

std::vector<metrics::DeviceMeasure> Trainer::gather_measures(const metrics::DeviceMeasure& mine) {
  std::vector<metrics::DeviceMeasure> all;
  for (const std::string& text : session_.all_gather(metrics::pack(mine))) all.push_back(metrics::unpack(text));
  return all;
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
    return gather_measures(since_log_);
  }();
  const double loss = mean_loss(loss_since_log_, steps_since_log_);
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
                 {"epoch", schedule_.epoch_after(step_)},
                 {"loss", loss},
                 {"grad_norm", last_result_.grad_norm},
                 {"learning_rate", last_result_.learning_rate},
                 {"samples", samples},
                 {"tokens", tokens},
                 {"padded_tokens", padded_tokens},
                 {"step_seconds", since_log_.seconds / static_cast<double>(std::max<int64_t>(1, step_ - logged_step_))},
                 {"devices", rows}});
    console_->step({.step = step_,
                    .total_steps = schedule_.total_steps,
                    .epoch = schedule_.epoch_after(step_),
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
  logged_step_ = step_;
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
    ordered_json event = {{"event", "eval"}, {"step", step_}, {"epoch", schedule_.epoch_after(step_)}};
    event.update(values);
    event["eval_runtime"] = result.seconds;
    event["eval_samples_per_second"] = static_cast<double>(result.samples) / result.seconds;
    write_event(event);
    std::string line = fmt::format("eval at step {}:", step_);
    for (const auto& [key, value] : values.items()) {
      if (value.is_number_float()) line += fmt::format("  {} {:.4f}", key, value.get<double>());
    }
    console_->notice(line);
    if (best_.consider(step_, values, buffers_.params) && setup_.options.load_best_model_at_end) best_folder_.due();
    write_side_products();
  }
  leave_out_of_throughput(start);
}

checkpoint::State Trainer::snapshot() const {
  checkpoint::State state;
  state.index = index_of(model_.layout());
  state.params = to_host(buffers_.params);
  state.exp_avg = to_host(buffers_.exp_avg);
  state.exp_avg_sq = to_host(buffers_.exp_avg_sq);
  state.step = step_;
  state.epoch = step_ / schedule_.steps_per_epoch;
  state.step_in_epoch = step_ % schedule_.steps_per_epoch;
  state.loss_scale = loss_scale_;
  state.good_steps = good_steps_;
  state.skipped_steps = skipped_steps_;
  best_.store(state);
  state.config = setup_.config_yaml;
  state.identity = setup_.hooks.identity(setup_.batching);
  state.label_map = setup_.label_map_json;
  const nlohmann::json counters = {{"loss_since_log", loss_since_log_},
                                   {"steps_since_log", steps_since_log_},
                                   {"skipped_in_a_row", skipped_in_a_row_},
                                   {"best_judge", best_.judge_json()}};
  state.history = fmt::format("{{\"events\":[{}],{}", history_, counters.dump().substr(1));
  return state;
}

// A failure to save is no reason to stop: old checkpoints stay, training goes on, the next interval tries again.
void Trainer::save() {
  if (step_ == last_saved_step_) return;
  const auto phase = session_.phase("saving a checkpoint");
  const double start = core::now_seconds();
  if (session_.is_root()) {
    write_side_products();
    try {
      const checkpoint::Directory directory(setup_.options.output_dir + "/checkpoints");
      const checkpoint::Published published = directory.publish(snapshot());
      last_saved_step_ = step_;
      drop_old_checkpoints(directory);
      write_event({{"event", "checkpoint"},
                   {"step", step_},
                   {"path", published.path},
                   {"bytes", published.bytes},
                   {"seconds", published.seconds},
                   {"stall_seconds", core::now_seconds() - start}});
    } catch (const std::exception& error) {
      save_problem_ = error.what();
      warn(fmt::format("checkpoint of step {} was not saved: {}", step_, error.what()));
    }
  }
  leave_out_of_throughput(start);
}

// One that cannot be deleted is in nobody's way but the disk's.
void Trainer::drop_old_checkpoints(const checkpoint::Directory& directory) {
  try {
    directory.retain(setup_.options.save_total_limit, setup_.options.load_best_model_at_end ? best_.step() : -1);
  } catch (const core::Error& error) {
    warn(fmt::format("an old checkpoint stays: {}", error.what()));
  }
}

void Trainer::write_side_products() {
  const std::string& folder = setup_.options.output_dir;
  const SideProduct::Outcome outcomes[] = {
      config_file_.write([&] {
        const std::string path = folder + "/config.yaml";
        std::error_code unknown;
        if (std::filesystem::is_regular_file(path, unknown) && core::read_file(path) == setup_.config_file) return;
        core::publish_file(path, setup_.config_file, ErrorKind::kOutput);
      }),
      best_folder_.write([&] { write_best_adapter(folder + "/adapter-best"); })};
  for (const SideProduct::Outcome& outcome : outcomes) {
    if (outcome.text.empty()) continue;
    if (outcome.failed) {
      warn(outcome.text);
    } else {
      console_->notice(outcome.text);
    }
  }
}

void Trainer::leave_out_of_throughput(double since_seconds) {
  log_seconds_ += core::now_seconds() - since_seconds;
  steps_alike_ = false;
}

}  // namespace neoloom::train
