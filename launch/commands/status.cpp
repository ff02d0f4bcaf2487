// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/status.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "launch/monitor/run_status.h"
#include "runtime/core/output.h"
#include "runtime/metrics/events.h"
#include "runtime/metrics/text_width.h"

namespace neoloom::launch {
namespace {

using nlohmann::ordered_json;

std::string evaluation_text(const ordered_json& event) {
  constexpr int kShownValues = 4;
  std::string text = fmt::format("step {}:", event.value("step", int64_t{0}));
  int shown = 0;
  for (const auto& [key, value] : event.items()) {
    if (!key.starts_with("eval_") || !value.is_number_float() || key == "eval_runtime" || shown == kShownValues)
      continue;
    text += fmt::format("{} {} {}", shown == 0 ? "" : ",", key, metrics::number_text(value.get<double>()));
    ++shown;
  }
  return text;
}

void print(const ordered_json& told, core::Output& output) {
  const auto line = [&output](const char* name, const std::string& text) {
    if (!text.empty()) output.print("  {:<12} {}\n", name, text);
  };
  output.print("{}: {}\n", told.at("run").get<std::string>(), told.at("state").get<std::string>());
  line("held by", told.value("holder", ""));
  line("Slurm job", told.value("slurm_job_id", ""));
  line("step", step_text(told));
  if (told.contains("loss")) line("loss", metrics::number_text(number_of(told, "loss")));
  if (told.contains("evaluation")) line("evaluation", evaluation_text(told.at("evaluation")));
  if (told.contains("checkpoint")) line("checkpoint", told["checkpoint"]["path"].get<std::string>());
  line("result", told.value("result", ""));
  line("next", advice_text(told));
}

}  // namespace

int run_status(const StatusArguments& arguments) {
  const std::string& run = arguments.run;
  require_run_folder(run);
  const checkpoint::LockReport lock = checkpoint::look_at_lock(run, kWatchSeconds);
  RunHistory history(run);
  metrics::read_lines(run + "/metrics.jsonl", [&](std::string_view line) { history.take_line(line); });
  const ordered_json told = describe_run(run, history, lock);
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
