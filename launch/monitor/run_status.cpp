// SPDX-License-Identifier: Apache-2.0
#include "launch/monitor/run_status.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "launch/job/run_folder.h"
#include "runtime/checkpoint/directory.h"
#include "runtime/core/error.h"
#include "runtime/metrics/names.h"
#include "runtime/metrics/text_width.h"

namespace neoloom::launch {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

RunState state_of(const RunHistory& history, const checkpoint::LockReport& lock) {
  if (lock.lives) return kRunning;
  if (!history.end()) return kDead;
  const std::string status = history.record().state();
  if (status == "completed") return kFinished;
  return status == "stopped" ? kStopped : kFailed;
}

// Returns the seconds until the last step, at the pace of the last logged ones; nullopt: unknown.
std::optional<double> seconds_left(const RunHistory& history) {
  if (!history.start() || !history.train()) return std::nullopt;
  const int64_t left = count_of(*history.start(), "total_steps") - history.step();
  const double pace = number_of(*history.train(), "step_seconds");
  return left >= 0 && pace > 0 ? std::optional(static_cast<double>(left) * pace) : std::nullopt;
}

std::string value_of(const std::map<std::string, std::string>& config, const char* key) {
  const auto found = config.find(key);
  return found == config.end() ? "" : found->second;
}

// Returns the set whose name the metric begins with, the longest one; the set without a name if there is none.
const ValidationRecord* judging_set(const RunRecord& record, const std::string& metric) {
  const ValidationRecord* found = nullptr;
  for (const ValidationRecord& set : record.validation) {
    const bool fits = set.name.empty() || metric.starts_with(set.name + "_");
    if (fits && (found == nullptr || set.name.size() > found->name.size())) found = &set;
  }
  return found;
}

}  // namespace

RunHistory::RunHistory(std::string run) : last_seconds_(std::numeric_limits<double>::quiet_NaN()) {
  record_.folder = std::move(run);
}

void RunHistory::take_line(std::string_view line) {
  if (const auto numbers = metrics::scan_train_line(line); numbers && reader_.take(*numbers)) {
    if (!std::isnan(numbers->time_seconds)) last_seconds_ = numbers->time_seconds;
    train_line_ = line;
    return;
  }
  metrics::take_event(line, [this](ordered_json event) { take(std::move(event)); });
}

const std::optional<ordered_json>& RunHistory::train() const {
  if (!train_line_.empty()) metrics::take_event(train_line_, [this](ordered_json event) { train_ = std::move(event); });
  train_line_.clear();
  return train_;
}

void RunHistory::take(ordered_json event) {
  const std::string kind = text_of(event, "event");
  if (const double seconds = number_of(event, "time"); !std::isnan(seconds)) last_seconds_ = seconds;
  if (kind == "run_start") {
    end_.reset();
    start_ = event;
    resumed_step_ = 0;
  } else if (kind == "resume") {
    resumed_step_ = count_of(event, "step");
    train();
    for (auto* last : {&train_, &eval_}) {
      if (*last && count_of(**last, "step") > resumed_step_) last->reset();
    }
  } else if (kind == "train") {
    train_ = event;
    train_line_.clear();
  } else if (kind == "eval") {
    eval_ = event;
  } else if (kind == "run_end") {
    end_ = event;
  }
  reader_.take(std::move(event));
}

int64_t RunHistory::step() const {
  const std::optional<ordered_json>& last = end_ ? end_ : train();
  return last ? count_of(*last, "step") : resumed_step_;
}

std::optional<BestEvaluation> best_evaluation(const RunRecord& record,
                                              const std::map<std::string, std::string>& config) {
  std::string metric = value_of(config, "trainer_config.metric_for_best_model");
  if (metric.empty()) metric = "loss";
  if (metric.starts_with("eval_")) metric = metric.substr(5);
  const ValidationRecord* set = judging_set(record, metric);
  if (set == nullptr) return std::nullopt;
  const std::string prefix = set->name.empty() ? "" : set->name + "_";
  const std::string name = metrics::metric_name(metric.substr(prefix.size()));
  const std::string greater = value_of(config, "trainer_config.greater_is_better");
  const bool smaller = greater == "true" || greater == "false" ? greater == "false" : metrics::smaller_is_better(name);
  std::optional<BestEvaluation> best;
  for (const EvalPoint& point : set->points) {
    for (const auto& [key, value] : point.values) {
      if (key != name || !std::isfinite(value)) continue;
      if (best && (smaller ? value >= best->value : value <= best->value)) continue;
      best = {fmt::format("eval_{}{}", prefix, name), value, point.step};
    }
  }
  return best;
}

ordered_json describe_run(const std::string& run, const RunHistory& history, const checkpoint::LockReport& lock) {
  const RunState state = state_of(history, lock);
  ordered_json told = {{"run", run}, {"state", state.name}, {"exit_code", state.exit_code}};
  if (lock.lives) told["holder"] = lock.holder;
  told["step"] = history.step();
  if (history.start()) {
    for (const char* key : {"total_steps", "world_size", "slurm_job_id", "slurm_array_job_id", "slurm_array_task_id"}) {
      if (history.start()->contains(key)) told[key] = history.start()->at(key);
    }
  }
  if (history.train()) {
    for (const char* key : {"epoch", "loss", "learning_rate"}) {
      if (history.train()->contains(key)) told[key] = history.train()->at(key);
    }
  }
  if (const auto left = seconds_left(history); lock.lives && left) told["seconds_left"] = *left;
  if (history.eval()) told["evaluation"] = *history.eval();
  if (const auto entries = checkpoint::Directory(run + "/checkpoints").list(); !entries.empty()) {
    told["checkpoint"] = {{"step", entries.back().step}, {"path", entries.back().path}};
  }
  if (const std::string result = result_of(run); !result.empty()) told["result"] = result;
  return told;
}

std::string step_text(const ordered_json& told, size_t columns) {
  const auto step = told.at("step").get<int64_t>();
  const int64_t total = count_of(told, "total_steps");
  std::string count = fmt::format("{}", step), share, epoch, left;
  if (total > 0) count += fmt::format(" of {}", total);
  if (total > 0) share = fmt::format(" ({:.1f} %)", 100.0 * static_cast<double>(step) / static_cast<double>(total));
  if (const double value = number_of(told, "epoch"); !std::isnan(value)) epoch = fmt::format(", epoch {:.2f}", value);
  if (told.contains("seconds_left"))
    left = fmt::format("{} left", metrics::duration_text(told.at("seconds_left").get<double>()));
  const std::string about = left.empty() ? "" : ", about " + left;
  for (const std::string& between : {fmt::format("{}{}", share, epoch), share, std::string()}) {
    std::string text = fmt::format("{}{}{}", count, between, about);
    if (metrics::display_width(text) <= columns) return text;
  }
  return left.empty() ? count : count + ", " + left;
}

std::string advice_text(const ordered_json& told) {
  const std::string state = told.at("state");
  if (state != kStopped.name && state != kFailed.name && state != kDead.name) return "";
  if (!told.contains("checkpoint")) return "there is no checkpoint: the same train command starts over";
  return fmt::format("the same train command resumes from step {}", told["checkpoint"]["step"].get<int64_t>());
}

void require_run_folder(const std::string& run) {
  std::error_code unknown;
  core::require(fs::exists(run + "/metrics.jsonl", unknown) || fs::exists(run + "/run.lock", unknown),
                core::ErrorKind::kUsage,
                "{} is not a run folder: it has no metrics.jsonl and no run.lock (give trainer_config.output_dir of a "
                "training run)",
                run);
}

}  // namespace neoloom::launch
