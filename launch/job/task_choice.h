// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "data/options.h"
#include "launch/config/run_config.h"
#include "model/options.h"

namespace neoloom::launch {

/// What a configuration asks the model to do. Its head says which of three tasks; data, which knows no models, has
/// other words for them, and they are translated here alone.
struct TaskChoice {
  model::Head head = model::Head::kCausalLm;
  std::string reason;  // which column and key chose it, for the log
  std::string advice;  // how to get the other task, where the training file chose; empty: a key chose
  bool classifies() const { return head != model::Head::kCausalLm; }
  bool multi_label() const { return head == model::Head::kMultiLabel; }
  data::Task task() const { return classifies() ? data::Task::kSequenceClassification : data::Task::kCausalLm; }
  data::ProblemType problem_type() const {
    return multi_label() ? data::ProblemType::kMultiLabel : data::ProblemType::kSingleLabel;
  }
  /// Hugging Face's problem_type; empty for causal LM.
  std::string problem_type_name() const;
  /// "sequence classification", "multi-label classification", "causal language model".
  std::string name() const;
};

/// From peft_config.task_type, model_config.problem_type, the label columns, data.label_names and
/// model_config.num_labels, which do not contradict each other (resolve_columns); fills in the default label column.
TaskChoice choose_task(RunConfig& config);

/// The same for a run that trains. Where no key says the task, the columns of the training file do: LoRA without a
/// task_type, and labels without a column, are a classification on a column `label`, or `labels` when it says how many
/// labels a row has. Fills in that column. Reads the first rows of the file.
/// Throws: Error(kUsage); Error(kData) when the file cannot be read.
TaskChoice choose_training_task(RunConfig& config);

}  // namespace neoloom::launch
