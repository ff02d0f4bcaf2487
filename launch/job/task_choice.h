// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launch/config/run_config.h"
#include "runtime/core/task.h"

namespace neoloom::launch {

/// The task of a run, and why.
struct TaskChoice {
  core::Task value = core::Task::kCausalLm;
  std::string reason;  // which column or key determined it, for the log
  std::string advice;  // how to choose the other task, if the training file determined it; else empty
  bool classifies() const { return value != core::Task::kCausalLm; }  // or regresses: there is a score head
  bool multi_label() const { return value == core::Task::kMultiLabel; }
  bool regression() const { return value == core::Task::kRegression; }
  /// Hugging Face's problem_type; empty for causal LM.
  std::string problem_type_name() const;
  /// "sequence classification", "multi-label classification", "regression", "causal language model".
  std::string name() const;
};

/// Chooses the task by peft_config.task_type, model_config.problem_type, the label columns, data.label_names and
/// model_config.num_labels, which must be consistent (resolve_columns). Sets the default label column.
TaskChoice choose_task(RunConfig& config);

/// The same for training. If no key determines the task (LoRA without a task_type), or no key names the label column,
/// the columns of the training file decide: a column `label` or `labels`, without `prompt` or `messages`, means
/// classification, and is set as the label column. Reads the first rows of the file.
/// Throws: Error(kUsage); Error(kData) when the file cannot be read.
TaskChoice choose_training_task(RunConfig& config);

}  // namespace neoloom::launch
