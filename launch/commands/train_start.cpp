// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/train_start.h"

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/batching/step_list.h"
#include "launch/config/values.h"
#include "launch/job/class_weights.h"
#include "launch/job/data_checks.h"
#include "launch/job/labels.h"
#include "launch/job/new_model.h"
#include "launch/planning/step_estimate.h"
#include "launch/version.h"
#include "model/config_notes.h"
#include "model/weight_cache/weight_cache.h"
#include "runtime/metrics/text_width.h"
#include "runtime/train/step_schedule.h"

namespace neoloom::launch {
namespace {

constexpr size_t kLabelsInALine = 5;

const char* plural(int64_t count) { return count == 1 ? "" : "s"; }

std::string task_line(const TrainingJob& s) {
  if (!s.task.classifies()) return fmt::format("task: {} ({})", s.task.name(), s.task.reason);
  const auto count = static_cast<int64_t>(s.labels.size());
  if (s.task.regression()) {
    return fmt::format("task: {}, {} value{} a row ({}): {}", s.task.name(), count, plural(count), s.task.reason,
                       value_summary(*s.train));
  }
  return fmt::format("task: {}, {} label{} ({}): {}", s.task.name(), count, plural(count), s.task.reason,
                     label_histogram(s.labels, s.label_counts, kLabelsInALine));
}

std::string adapter_text(const TrainStart& start) {
  const std::optional<model::LoraOptions>& lora = start.job.config.peft_config;
  const int64_t trained = start.model.layout().trainable_elements;
  if (!lora) {
    const bool all = trained == start.job.base.config.body_parameters();
    return fmt::format("{} of them are trained", all ? "all" : metrics::with_thousands(trained));
  }
  return fmt::format("{} r {} on {} trains {}", lora->use_dora ? "DoRA" : "LoRA", lora->r,
                     to_text(lora->target_modules), metrics::with_thousands(trained));
}

std::string model_line(const TrainStart& start) {
  const TrainingJob& s = start.job;
  return fmt::format("model: {}, {} parameters, {} in {}, computed in {}; {}",
                     is_new_model(s.config.model_config) ? "new, with random weights" : s.base.folder,
                     metrics::with_thousands(s.base.config.body_parameters()),
                     s.config.peft_config ? "frozen" : "trained", model::dtype_name(stored_dtype(s.config)),
                     s.resolved.compute_dtype, adapter_text(start));
}

std::string data_line(const TrainingJob& s, int64_t warnings) {
  std::string text = fmt::format("data: {} samples of {}", s.rows->size(), s.config.data.train.text());
  if (s.config.data.validation_split > 0) {
    text += fmt::format(", {} of them validate", s.validation.front().store->size());
  } else {
    for (size_t i = 0; i < s.validation.size(); ++i) {
      text +=
          fmt::format(", {} of {} validate", s.validation[i].store->size(), s.config.data.validation[i].files.text());
    }
  }
  return text + (warnings == 0 ? "" : fmt::format("; {} warning{} about them below", warnings, plural(warnings)));
}

/// Returns the seconds of the steps that are left, at measured rates; nullopt: no rates are known.
std::optional<double> expected_seconds(const TrainStart& start, const train::StepSchedule& schedule) {
  if (start.limit.seconds_per_token == 0.0) return std::nullopt;
  const double tokens =
      tokens_of_epochs(*start.job.train, schedule.epoch_after(schedule.total_steps - start.first_step));
  return tokens / static_cast<double>(start.ranks) * cpu_step_seconds(start.limit.seconds_per_token);
}

train::StepSchedule schedule_of(const TrainingJob& s) {
  const train::Options& trainer = s.config.trainer_config;
  return train::resolve_schedule(
      trainer, data::steps_per_epoch(s.train->packs(), train::step_list_options(trainer, s.resolved.batching)));
}

std::string steps_line(const TrainStart& start) {
  const TrainingJob& s = start.job;
  const train::Batching& batching = s.resolved.batching;
  const train::StepSchedule schedule = schedule_of(s);
  const std::optional<double> seconds = expected_seconds(start, schedule);
  return fmt::format("training on {} samples: {} steps of {} ({} per epoch) on {} rank{}{}; {}", s.train->size(),
                     schedule.total_steps, batching.global_batch_size(), schedule.steps_per_epoch, start.ranks,
                     plural(start.ranks),
                     seconds ? fmt::format(", about {} by measured GEMM rates", readable_seconds(*seconds)) : "",
                     start.device.explanation());
}

std::vector<std::string> data_warnings(const TrainingJob& s) {
  std::vector<std::string> warnings = s.untrained;
  if (s.task.classifies() && !s.task.regression()) {
    if (std::string text = label_warning(s.labels, s.label_counts); !text.empty()) warnings.push_back(std::move(text));
  }
  for (const data::Finding& finding : s.findings) {
    if (finding.warning) warnings.push_back(finding.name + ": " + finding.text);
  }
  for (std::string& text : rows_left_out(*s.rows, s.validation)) warnings.push_back(std::move(text));
  return warnings;
}

std::vector<std::string> other_warnings(const TrainingJob& s) {
  std::vector<std::string> warnings = s.config.warnings;
  if (std::string text = train::eval_delay_warning(schedule_of(s)); !text.empty()) warnings.push_back(std::move(text));
  const std::string& wanted = s.config.runtime.compute_dtype;
  if (wanted != "auto" && wanted != s.resolved.compute_dtype) {
    warnings.push_back(
        fmt::format("runtime.compute_dtype: {}, but this CPU has no fast kernels for it: computing in {}", wanted,
                    s.resolved.compute_dtype));
  }
  return warnings;
}

/// Returns what the configuration, the model's files and the data lead to.
std::vector<std::string> remarks_of(const TrainingJob& s) {
  std::vector<std::string> remarks;
  const auto remark = [&](std::string text) {
    if (!text.empty()) remarks.push_back(std::move(text));
  };
  if (!s.task.advice.empty()) remark("task: " + s.task.advice);
  if (!s.class_weights.empty()) remark("class weights: " + class_weight_text(s.labels, s.class_weights));
  remark(s.head.note);
  for (const std::string& text : model::config_notes(s.base.config)) remark(text);
  for (const std::string& text : s.base.weights->notes) remark(text);
  if (const std::string text = note_on_vocabulary(s.base, *s.tokenizer); !text.empty()) remark("tokenizer: " + text);
  for (const std::string& text : s.tokenizer->notes()) remark("tokenizer: " + text);
  for (const data::Finding& finding : s.findings) {
    if (!finding.warning) remark(finding.name + ": " + finding.text);
  }
  for (const data::Finding& fact : sample_facts(s, *s.train)) remark(fact.name + ": " + fact.text);
  if (s.config.data.validation_split > 0) {
    remark(fmt::format("data.validation_split: {} of {} samples of {} validate, {} train ({})",
                       s.validation.front().store->size(), s.rows->size(), s.config.data.train.text(), s.train->size(),
                       s.task.value == core::Task::kSingleLabel ? "each label gives its share" : "taken at random"));
  }
  return remarks;
}

}  // namespace

void print_start(const TrainStart& start, core::Logger& log) {
  const TrainingJob& s = start.job;
  const std::vector<std::string> warnings = data_warnings(s);
  log.info(task_line(s));
  log.info(model_line(start));
  log.info(data_line(s, static_cast<int64_t>(warnings.size())));
  log.info(steps_line(start));
  for (const std::string& text : warnings) log.warning(text);
  for (const std::string& text : other_warnings(s)) log.warning(text);
  for (const std::string& text : remarks_of(s)) log.info(text);
  if (s.labels.size() > kLabelsInALine && !s.task.regression()) {
    log.detail("labels: " + label_histogram(s.labels, s.label_counts));
  }
  log.detail(version_text());
  log.detail("kernels: " + s.resolved.instruction_sets);
  for (const std::string& kernel : start.model.kernels()) log.detail("attention: " + kernel);
}

}  // namespace neoloom::launch
