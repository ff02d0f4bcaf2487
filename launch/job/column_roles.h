// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/readers/file_sample.h"
#include "runtime/core/task.h"

namespace neoloom::launch {

/// What the columns of a file are for, and why. Names are empty where there is no such column.
struct ColumnRoles {
  core::Task task = core::Task::kCausalLm;
  std::string task_reason;
  std::string text, text_pair;
  std::string text_reason;
  std::string label;             // one label, or a number, a row
  std::string labels;            // several a row
  std::string labels_separator;  // of `labels` in a text; empty: neoloom's own, or a list
  std::string label_reason;
  int64_t values = 0;  // regression: numbers a row
  std::string prompt, response, prompt_template;
  bool brings_separators = false;  // most prompts end in white space, or most responses begin with it
  std::string messages;            // chats
  std::string chat_template;       // that has their roles; empty: the usual one does
  std::vector<std::string> notes;  // what else deserves a look
};

/// Guesses the task and the roles of the columns by their names and their values in the sample. `task_type`: SEQ_CLS or
/// CAUSAL_LM, if it is known; empty: the columns decide.
/// Throws: Error(kData) when no column holds texts, SEQ_CLS finds no label, or chats have no assistant.
ColumnRoles guess_roles(const data::FileSample& sample, const std::string& task_type);

}  // namespace neoloom::launch
