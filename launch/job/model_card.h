// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "launch/config/run_config.h"
#include "launch/job/inputs.h"
#include "launch/job/task_choice.h"

namespace neoloom::launch {

/// What a model card tells of a model beside its base. Nothing in it depends on ranks or clocks.
struct CardFacts {
  const RunConfig& config;
  const TaskChoice& task;
  const std::vector<std::string>& labels;
  const BaseReference& base;
  bool adapter = true;        // false: whole weights
  int64_t train_samples = 0;  // 0: the training is not known
  int64_t step = 0;
};

/// Returns README.md of a folder that holds a model: metadata as PEFT writes them (base_model, library_name, tags) with
/// pipeline_tag, labels and, as model-index, the metrics of `evaluation`; then what it is, how PEFT, transformers and
/// neoloom use it, and how it was trained. Names of files stand without their folders.
/// `evaluation`: an `eval` event; null: none.
std::string model_card(const CardFacts& facts, const nlohmann::json& evaluation);

}  // namespace neoloom::launch
