// SPDX-License-Identifier: Apache-2.0
#include "launch/job/task_choice.h"

#include <fmt/format.h>

#include "data/readers/first_values.h"
#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;
using data::Cell;

std::string task_type(const RunConfig& config) { return config.peft_config ? config.peft_config->task_type : ""; }

/// Returns true for names or a number of labels: they ask for a classification, whatever its column.
bool asks_for_labels(const RunConfig& config) {
  return !config.data.label_names.empty() || config.model_config.num_labels.has_value();
}

/// Returns the key that says that this is a classification; "" without one.
std::string classifying_key(const RunConfig& config) {
  const data::Options& data = config.data;
  if (task_type(config) == "SEQ_CLS") return "peft_config.task_type SEQ_CLS";
  if (!config.model_config.problem_type.empty()) {
    return "model_config.problem_type " + config.model_config.problem_type;
  }
  if (!data.label_column.empty()) return "data.label_column given";
  if (!data.labels_column.empty()) return "data.labels_column given";
  if (!data.label_names.empty()) return "data.label_names given";
  return asks_for_labels(config) ? "model_config.num_labels given" : "";
}

TaskChoice language_model(const RunConfig& config) {
  TaskChoice choice;
  if (!task_type(config).empty()) {
    choice.reason = "peft_config.task_type " + task_type(config);
  } else if (!config.data.messages_column.empty()) {
    choice.reason = fmt::format("chats in the column {}", core::quoted(config.data.messages_column));
  } else if (!config.data.prompt_column.empty()) {
    choice.reason = "data.prompt_column and data.response_column given";
  } else if (!config.data.prompt_template.empty()) {
    choice.reason = "data.template given";
  } else {
    choice.reason = config.peft_config ? "no label column" : "no peft_config.task_type and no data.label_column";
  }
  return choice;
}

/// Takes the column as one label a row or, if its first value is a list, as several. Refuses a text with the separator,
/// which could be either.
void take_labels_column(const Cell& first, data::Options& data) {
  const bool joined = first.kind == Cell::Kind::kText && !data.labels_separator.empty() &&
                      first.text.find(data.labels_separator) != std::string::npos;
  core::require(!joined, ErrorKind::kUsage,
                "{} has a column labels whose first value is {}: say whether a row has one label "
                "(data.label_column: labels) or several (data.labels_column: labels, separated by {})",
                data.train.text(), core::quoted(first.text), core::quoted(data.labels_separator));
  (first.kind == Cell::Kind::kList ? data.labels_column : data.label_column) = "labels";
}

/// Fills in the label column that the training file shows. Returns false when it shows none, or when keys have decided.
bool take_column_of_file(RunConfig& config) {
  data::Options& data = config.data;
  const bool decided = !data.label_column.empty() || !data.labels_column.empty() || data::has_responses(data) ||
                       !task_type(config).empty() || !config.model_config.problem_type.empty();
  // Full-parameter training has no task_type to say otherwise: there a column has to be named.
  if (decided || (!config.peft_config && !asks_for_labels(config))) return false;
  const auto values = data::first_values(data.train, data, {"label", "labels", "prompt", "messages"});
  const auto has = [&](size_t column) { return values[column].kind != Cell::Kind::kMissing; };
  if (has(2) || has(3)) return false;
  if (has(0)) {
    data.label_column = "label";
  } else if (has(1)) {
    take_labels_column(values[1], data);
  }
  return has(0) || has(1);
}

/// Takes chats from a training file that has a column `messages` and no column of texts, unless keys have decided.
void take_chats_of_file(RunConfig& config) {
  data::Options& data = config.data;
  const std::string task = task_type(config);
  const bool decided = data::has_responses(data) || data.text_column != data::Options{}.text_column ||
                       !data.text_pair_column.empty() || (task != "CAUSAL_LM" && !classifying_key(config).empty());
  if (decided) return;
  const auto values = data::first_values(data.train, data, {"text", "messages"});
  const Cell::Kind kind = values[1].kind;
  if (values[0].kind != Cell::Kind::kMissing || (kind != Cell::Kind::kOther && kind != Cell::Kind::kList)) return;
  data.messages_column = "messages";
  data.prompt_template = "chat";
}

void check_modules_to_save(const model::LoraOptions& lora, bool classifies) {
  for (const std::string& module : lora.modules_to_save) {
    const bool is_score = module == "score" || module == "classifier";
    core::require(classifies || !is_score, ErrorKind::kUsage,
                  "peft_config.modules_to_save: a causal language model has no {} to train: "
                  "remove it, or set peft_config.task_type to SEQ_CLS",
                  module);
    core::require(!classifies || module != "lm_head", ErrorKind::kUsage,
                  "peft_config.modules_to_save: a classifier has no lm_head to train: "
                  "remove it, or set peft_config.task_type to CAUSAL_LM");
  }
}

}  // namespace

std::string TaskChoice::problem_type_name() const {
  if (!classifies()) return "";
  if (regression()) return "regression";
  return multi_label() ? "multi_label_classification" : "single_label_classification";
}

std::string TaskChoice::name() const {
  if (!classifies()) return "causal language model";
  if (regression()) return "regression";
  return multi_label() ? "multi-label classification" : "sequence classification";
}

TaskChoice choose_task(RunConfig& config) {
  const data::Options& columns = config.data;
  const std::string& problem = config.model_config.problem_type;
  const std::string key = classifying_key(config);
  if (task_type(config) == "CAUSAL_LM" || key.empty() || data::has_responses(columns)) {
    return language_model(config);
  }
  name_label_column(config);
  TaskChoice choice;
  const bool multi = problem == "multi_label_classification" || (problem.empty() && !columns.labels_column.empty());
  choice.value = multi ? core::Task::kMultiLabel : core::Task::kSingleLabel;
  if (problem == "regression") choice.value = core::Task::kRegression;
  const std::string& column = columns.label_column.empty() ? columns.labels_column : columns.label_column;
  choice.reason = fmt::format("column {}; {}", core::quoted(column), key);
  return choice;
}

TaskChoice choose_training_task(RunConfig& config) {
  take_chats_of_file(config);
  const bool by_file = take_column_of_file(config);
  TaskChoice choice = choose_task(config);
  if (config.peft_config) check_modules_to_save(*config.peft_config, choice.classifies());
  const std::string& pack = config.data.pack;
  core::require(!choice.classifies() || pack == "auto" || pack == "none", ErrorKind::kUsage,
                "data.pack: {}: packs are for causal language models, but this run classifies ({}): remove the key, or "
                "set peft_config.task_type to CAUSAL_LM",
                pack, choice.reason);
  if (!by_file) return choice;
  const std::string& column = config.data.label_column.empty() ? config.data.labels_column : config.data.label_column;
  if (asks_for_labels(config)) {
    choice.reason = fmt::format("column {}; {} given", core::quoted(column),
                                config.data.label_names.empty() ? "model_config.num_labels" : "data.label_names");
    return choice;
  }
  choice.reason = fmt::format("column {}; peft_config.task_type not given", core::quoted(column));
  choice.advice = fmt::format(
      "{} has a column {}, so its rows are classified; "
      "peft_config.task_type: CAUSAL_LM trains a language model on the texts instead",
      config.data.train.text(), core::quoted(column));
  return choice;
}

}  // namespace neoloom::launch
