// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "launch/config/draft.h"

namespace neoloom::launch {

/// What neoloom makes of the files of a Hugging Face script.
struct FromTrainer {
  /// A key that the new configuration leaves out.
  struct LeftOut {
    std::string name;      // with its group
    std::string value;     // as text
    std::string reason;    // why, and what to do
    bool refused = false;  // neoloom would refuse it; else it has no effect
  };
  Draft draft;  // keys whose value is not neoloom's default
  std::vector<LeftOut> left_out;
  std::string base_model;  // base_model_name_or_path of the adapter; empty: not given
  bool has_trainer = false;
  bool has_adapter = false;
};

/// Reads what TrainingArguments.to_json_string() and LoraConfig.save_pretrained() write. The keys of a file tell which
/// of both it is.
/// Throws: Error(kUsage) for a file that is neither, or two of a kind.
FromTrainer read_from_trainer(const std::vector<std::string>& files);

}  // namespace neoloom::launch
