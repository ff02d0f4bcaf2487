// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/reporter.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <utility>

#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/metrics/event_line.h"

namespace neoloom::train {
namespace {

using nlohmann::ordered_json;

int64_t last_world_size(const std::string& path) {
  int64_t world_size = 0;
  const auto take = [&](const ordered_json& event) {
    if (event.value("event", "") == "run_start") world_size = event.value("world_size", int64_t{0});
  };
  metrics::read_lines(path, [&](std::string_view line) {
    const std::string_view kind = metrics::kind_of(line);
    if (kind.empty() || kind == "run_start") metrics::take_event(line, take);
  });
  return world_size;
}

metrics::DeviceMeasure total_of(const std::vector<metrics::DeviceMeasure>& devices) {
  metrics::DeviceMeasure total;
  for (const metrics::DeviceMeasure& device : devices) metrics::accumulate(device, total);
  return total;
}

}  // namespace

Reporter::Reporter(comm::Communicator& communicator, ReporterSetup setup)
    : communicator_(communicator),
      setup_(std::move(setup)),
      mistakes_(setup_.output_dir, setup_.decode),
      logged_step_(setup_.first_step) {
  setup_.self.limit_seconds_per_token = setup_.limit.seconds_per_token;
  since_log_ = since_start_ = setup_.self;
  if (setup_.self.rank != 0) return;
  const std::string path = setup_.output_dir + "/metrics.jsonl";
  world_size_before_ = last_world_size(path);
  events_ = std::make_unique<metrics::EventLog>(path);
  console_ = std::make_unique<metrics::Console>(setup_.progress, setup_.log_level);
  sinks_ = metrics::make_sinks({.report_to = setup_.report_to,
                                .output_dir = setup_.output_dir,
                                .logging_dir = setup_.logging_dir,
                                .config_text = setup_.config_text,
                                .host = setup_.self.host,
                                .first_step = setup_.first_step});
}

void Reporter::event(ordered_json event) {
  if (!events_) return;
  event["time"] = core::unix_seconds();
  events_->write(event);
  pass_on(event);
}

// A sink that cannot write, for example on a full disk, does not end the run. It gets the next event, too.
void Reporter::pass_on(const ordered_json& event) {
  for (const auto& sink : sinks_) {
    try {
      sink->take(event);
    } catch (const core::Error& error) {
      if (!std::exchange(told_of_sinks_, true)) {
        console_->warning(fmt::format("trainer_config.report_to: {}; the run goes on and tries again", error.what()));
      }
    }
  }
}

void Reporter::notice(const std::string& text) {
  if (console_) console_->notice(text);
}

void Reporter::detail(const std::string& text) {
  if (console_) console_->detail(text);
}

void Reporter::result(const std::string& text) {
  if (console_) console_->result(text);
}

void Reporter::warn(int64_t step, const std::string& text, const ordered_json& more) {
  if (console_) console_->warning(text);
  ordered_json warning = {{"event", "warning"}, {"step", step}, {"message", text}};
  warning.update(more);
  event(warning);
}

void Reporter::tell(int64_t step, const SideProduct::Outcome& outcome) {
  if (outcome.failed && !outcome.text.empty()) warn(step, outcome.text);
  if (!outcome.failed && !outcome.text.empty()) notice(outcome.text);
}

void Reporter::start() { start_seconds_ = log_seconds_ = core::now_seconds(); }

void Reporter::leave_out_of_throughput(double since_seconds) { log_seconds_ += core::now_seconds() - since_seconds; }

double Reporter::seconds_left(int64_t step) const {
  const int64_t done = step - setup_.first_step;
  if (done <= 0) return 0.0;
  return (core::now_seconds() - start_seconds_) / static_cast<double>(done) *
         static_cast<double>(setup_.total_steps - step);
}

std::vector<metrics::DeviceMeasure> Reporter::gather(const metrics::DeviceMeasure& mine) const {
  std::vector<metrics::DeviceMeasure> all;
  for (const std::string& text : setup_.gather(metrics::pack(mine))) all.push_back(metrics::unpack(text));
  return all;
}

// Counts waits for sums as communication. On a device the compute stream waits, not the host, so the host's timers
// counted these waits as compute.
void Reporter::measure_sums() {
  const double exposed = communicator_.take_exposed_seconds();
  since_log_.exposed_sum_seconds += exposed;
  if (setup_.self.device != "cpu") {
    since_log_.comm_seconds += exposed;
    since_log_.compute_seconds = std::max(0.0, since_log_.compute_seconds - exposed);
  }
  const uint64_t bytes = communicator_.reduced_bytes();
  since_log_.summed_bytes += static_cast<int64_t>(bytes - std::exchange(bytes_before_log_, bytes));
}

void Reporter::log(metrics::StepLine line) {
  const double now = core::now_seconds();
  const double seconds = now - log_seconds_;
  since_log_.seconds = seconds;
  since_log_.peak_memory_bytes = setup_.peak_memory_bytes();
  measure_sums();
  std::optional<comm::Watchdog::Guard> bounded;
  if (setup_.guard) bounded.emplace(setup_.guard());
  const std::vector<metrics::DeviceMeasure> devices = gather(since_log_);
  bounded.reset();
  if (writes()) {
    const metrics::DeviceMeasure total = total_of(devices);
    ordered_json rows = ordered_json::array();
    for (const metrics::DeviceMeasure& device : devices) rows.push_back(metrics::device_json(device));
    ordered_json train = {
        {"event", "train"},
        {"step", line.step},
        {"epoch", line.epoch},
        {"loss", line.loss},
        {"grad_norm", line.grad_norm},
        {"learning_rate", line.learning_rate},
        {"samples", total.samples},
        {"tokens", total.tokens},
        {"padded_tokens", total.padded_tokens},
        {"step_seconds", seconds / static_cast<double>(std::max<int64_t>(1, line.step - logged_step_))},
        {"devices", rows}};
    if (const auto share = metrics::budget_share(total)) train["micro_batch_fill"] = *share;
    event(train);
    line.total_steps = setup_.total_steps;
    line.samples_per_s = static_cast<double>(total.samples) / seconds;
    line.tokens_per_s = static_cast<double>(total.tokens) / seconds;
    line.seconds_left = seconds_left(line.step);
    console_->step(line);
  }
  metrics::accumulate(since_log_, since_start_);
  since_log_ = setup_.self;
  log_seconds_ = now;
  logged_step_ = line.step;
}

bool Reporter::draws_histograms() const {
  return writes() &&
         std::find(setup_.report_to.begin(), setup_.report_to.end(), "tensorboard") != setup_.report_to.end();
}

void Reporter::histograms(int64_t step, const ordered_json& lists) {
  ordered_json event = {{"event", metrics::kHistograms}, {"step", step}, {"time", core::unix_seconds()}};
  event.update(lists);
  pass_on(event);
}

void Reporter::evaluated(const Evaluation& evaluation) {
  constexpr size_t kShownValues = 5;
  constexpr size_t kMostMatrixLabels = 100;
  const EvalResult& result = evaluation.result;
  const std::vector<std::string>& labels = evaluation.store.label_names();
  ordered_json eval = {{"event", "eval"}, {"step", evaluation.step}, {"epoch", evaluation.epoch}};
  eval.update(evaluation.values);
  ordered_json more = {{"eval_runtime", result.seconds},
                       {"eval_samples_per_second", static_cast<double>(result.samples) / result.seconds}};
  more.update(result.tables(labels));
  if (labels.size() > kMostMatrixLabels) more.erase("eval_confusion_matrix");
  eval.update(for_set(evaluation.set, more));
  event(eval);
  tell(evaluation.step, mistakes_.update(evaluation.set, result, evaluation.store));
  std::string line = fmt::format("eval at step {}:", evaluation.step);
  size_t shown = 0;
  for (const auto& [key, value] : evaluation.values.items()) {
    if (!value.is_number_float() || (shown >= kShownValues && key != evaluation.judge)) continue;
    line += fmt::format("  {} {:.4f}", key, value.get<double>());
    ++shown;
  }
  notice(line);
  if (std::exchange(evaluated_step_, evaluation.step) != evaluation.step) last_evaluation_.clear();
  last_evaluation_ += "; " + line;
  const std::string text = result.warning_of_one_prediction(labels);
  if (evaluation.step == 0) return;  // an untrained classifier may well predict one class
  if (text.empty()) {
    told_of_one_prediction_.erase(evaluation.set);
  } else if (told_of_one_prediction_.insert(evaluation.set).second) {
    warn(evaluation.step, fmt::format("evaluation{}: {}", evaluation.set.empty() ? "" : " of " + evaluation.set, text));
  }
}

void Reporter::tick(int64_t step) {
  if (console_) console_->tick(step, setup_.total_steps, seconds_left(step));
}

core::Progress Reporter::begin_work(const std::string& what, const std::string& unit) {
  if (!console_) return {};
  return [this, what, unit, start = core::now_seconds()](int64_t done, int64_t total) {
    console_->work({what, unit, done, total, core::now_seconds() - start});
  };
}

void Reporter::finish() {
  if (start_seconds_ > 0.0) {
    run_seconds_ = core::now_seconds() - start_seconds_;
    since_log_.seconds = core::now_seconds() - log_seconds_;
  }
  measure_sums();
  metrics::accumulate(since_log_, since_start_);
  since_start_.peak_memory_bytes = std::max(since_start_.peak_memory_bytes, setup_.peak_memory_bytes());
  devices_ = gather(since_start_);
  if (console_) console_->finish();
}

void Reporter::run_end(const std::string& status, int64_t step, const ordered_json& more) {
  write_end(status, step, more);
  if (!writes() || !setup_.run_ended) return;
  if (const std::string warning = setup_.run_ended(); !warning.empty()) console_->warning(warning);
}

void Reporter::write_end(const std::string& status, int64_t step, const ordered_json& more) {
  ordered_json end = {{"event", "run_end"}, {"status", status}, {"step", step}};
  end.update(more);
  if (devices_.empty()) return event(end);  // the run failed before finish()
  end["train_runtime"] = run_seconds_;
  if (step == setup_.first_step) return event(end);
  const metrics::DeviceMeasure total = total_of(devices_);
  end["train_samples_per_second"] = static_cast<double>(total.samples) / run_seconds_;
  end["train_tokens_per_second"] = static_cast<double>(total.tokens) / run_seconds_;
  if (const auto fill = metrics::budget_share(total)) end["micro_batch_fill"] = *fill;
  const std::optional<double> share = metrics::share_of_limit(devices_);
  end["share_of_limit"] = share ? ordered_json(*share) : ordered_json();
  if (share) end["gemm_rates"] = setup_.limit.rates;
  event(end);
  notice(metrics::device_table(devices_));
  notice("share of the limit: " + limit_text(share));
}

std::string Reporter::limit_text(std::optional<double> share) const {
  if (!share) return fmt::format("unknown ({})", setup_.limit.advice);
  const std::string text = fmt::format("{:.0f} % (GEMM rates {})", 100.0 * *share, setup_.limit.rates);
  return *share <= 1.0 ? text : text + "; more than 100 % means that the rates are too low; " + setup_.limit.advice;
}

}  // namespace neoloom::train
