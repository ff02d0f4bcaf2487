// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launch/config/run_config.h"
#include "runtime/core/task.h"

namespace neoloom::launch {

/// What a configuration asks the model to do, and why.
struct TaskChoice {
  core::Task value = core::Task::kCausalLm;
  std::string reason;  // which column and key chose it, for the log
  std::string advice;  // how to get the other task, where the training file chose; empty: a key chose
  bool classifies() const { return value != core::Task::kCausalLm; }
  bool multi_label() const { return value == core::Task::kMultiLabel; }
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
