// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/status.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "launch/job/run_folder.h"
#include "runtime/checkpoint/directory.h"
#include "runtime/checkpoint/run_lock.h"
#include "runtime/core/error.h"
#include "runtime/core/output.h"
#include "runtime/metrics/events.h"
#include "runtime/metrics/text_width.h"

namespace neoloom::launch {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr double kWatchSeconds = 11;  // two heartbeats of a holder on another host

// A state and the exit code that tells it to scripts.
struct State {
  const char* name;
  int exit_code;
};
constexpr State kFinished{"finished", 0};
constexpr State kRunning{"running", 10};
constexpr State kStopped{"stopped", 11};
constexpr State kFailed{"failed", 12};
constexpr State kDead{"dead", 13};

// The last event of each kind in metrics.jsonl. A start forgets the end of the one before.
struct History {
  std::optional<ordered_json> start, train, eval, end;
};

History read_history(const std::string& path) {
  History history;
  metrics::read_events(path, [&](ordered_json event) {
    const std::string kind = event.value("event", "");
    if (kind == "run_start") {
      history.end.reset();
      history.start = std::move(event);
    } else if (kind == "train") {
      history.train = std::move(event);
    } else if (kind == "eval") {
      history.eval = std::move(event);
    } else if (kind == "run_end") {
      history.end = std::move(event);
    }
  });
  return history;
}

State state_of(const History& history, const checkpoint::LockReport& lock) {
  if (lock.lives) return kRunning;
  if (!history.end) return kDead;
  const std::string status = history.end->value("status", "");
  if (status == "completed") return kFinished;
  return status == "stopped" ? kStopped : kFailed;
}

// Returns the seconds until the last step, at the pace of the last logged ones; nullopt: unknown.
std::optional<double> seconds_left(const History& history) {
  if (!history.start || !history.train) return std::nullopt;
  const int64_t left = history.start->value("total_steps", int64_t{0}) - history.train->value("step", int64_t{0});
  const double pace = history.train->value("step_seconds", 0.0);
  return left >= 0 && pace > 0 ? std::optional(static_cast<double>(left) * pace) : std::nullopt;
}

ordered_json describe(const std::string& run) {
  const checkpoint::LockReport lock = checkpoint::look_at_lock(run, kWatchSeconds);
  const History history = read_history(run + "/metrics.jsonl");
  const State state = state_of(history, lock);
  ordered_json told = {{"run", run}, {"state", state.name}, {"exit_code", state.exit_code}};
  if (lock.lives) told["holder"] = lock.holder;
  const ordered_json* latest = history.end ? &*history.end : history.train ? &*history.train : nullptr;
  told["step"] = latest != nullptr ? latest->value("step", int64_t{0}) : 0;
  if (history.start) {
    for (const char* key : {"total_steps", "world_size", "slurm_job_id", "slurm_array_job_id", "slurm_array_task_id"}) {
      if (history.start->contains(key)) told[key] = history.start->at(key);
    }
  }
  if (history.train) {
    for (const char* key : {"epoch", "loss", "learning_rate"}) {
      if (history.train->contains(key)) told[key] = history.train->at(key);
    }
  }
  if (const auto left = seconds_left(history); lock.lives && left) told["seconds_left"] = *left;
  if (history.eval) told["evaluation"] = *history.eval;
  if (const auto entries = checkpoint::Directory(run + "/checkpoints").list(); !entries.empty()) {
    told["checkpoint"] = {{"step", entries.back().step}, {"path", entries.back().path}};
  }
  if (const std::string result = result_of(run); !result.empty()) told["result"] = result;
  return told;
}

std::string step_text(const ordered_json& told) {
  const auto step = told.at("step").get<int64_t>();
  const int64_t total = told.value("total_steps", int64_t{0});
  std::string text = fmt::format("{}", step);
  if (total > 0) text += fmt::format(" of {} ({:.1f} %)", total, 100.0 * static_cast<double>(step) / total);
  if (told.contains("epoch")) text += fmt::format(", epoch {:.2f}", told.at("epoch").get<double>());
  if (told.contains("seconds_left")) {
    text += ", about " + metrics::duration_text(told.at("seconds_left").get<double>()) + " left";
  }
  return text;
}

std::string evaluation_text(const ordered_json& event) {
  constexpr int kShownValues = 4;
  std::string text = fmt::format("step {}:", event.value("step", int64_t{0}));
  int shown = 0;
  for (const auto& [key, value] : event.items()) {
    if (!key.starts_with("eval_") || !value.is_number_float() || key == "eval_runtime" || shown == kShownValues)
      continue;
    text += fmt::format("{} {} {:.4f}", shown == 0 ? "" : ",", key, value.get<double>());
    ++shown;
  }
  return text;
}

std::string advice(const ordered_json& told) {
  const std::string state = told.at("state");
  if (state == kFinished.name || state == kRunning.name) return "";
  if (!told.contains("checkpoint")) return "there is no checkpoint: the same train command starts over";
  return fmt::format("the same train command resumes from step {}", told["checkpoint"]["step"].get<int64_t>());
}

void print(const ordered_json& told, core::Output& output) {
  const auto line = [&output](const char* name, const std::string& text) {
    if (!text.empty()) output.print("  {:<12} {}\n", name, text);
  };
  output.print("{}: {}\n", told.at("run").get<std::string>(), told.at("state").get<std::string>());
  line("held by", told.value("holder", ""));
  line("Slurm job", told.value("slurm_job_id", ""));
  line("step", step_text(told));
  if (told.contains("loss")) line("loss", fmt::format("{:.4f}", told.at("loss").get<double>()));
  if (told.contains("evaluation")) line("evaluation", evaluation_text(told.at("evaluation")));
  if (told.contains("checkpoint")) line("checkpoint", told["checkpoint"]["path"].get<std::string>());
  line("result", told.value("result", ""));
  line("next", advice(told));
}

}  // namespace

int run_status(const StatusArguments& arguments) {
  const std::string& run = arguments.run;
  core::require(fs::exists(run + "/metrics.jsonl") || fs::exists(run + "/run.lock"), core::ErrorKind::kUsage,
                "{} is not a run folder: it has no metrics.jsonl and no run.lock (give trainer_config.output_dir of a "
                "training run)",
                run);
  const ordered_json told = describe(run);
  core::Output output;
  if (arguments.json) {
    output.print("{}\n", told.dump());
  } else {
    print(told, output);
  }
  output.finish();
  return told.at("exit_code").get<int>();
}

}  // namespace neoloom::launch
