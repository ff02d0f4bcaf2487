// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "data/options.h"
#include "model/options.h"
#include "runtime/train/options.h"

namespace neoloom::launch {

/// One member per configuration group.
struct RunConfig {
  model::Options model_config;
  std::optional<model::LoraOptions> peft_config;  // absent: full-parameter training
  data::TokenizerOptions tokenizer_config;
  train::Options trainer_config;
  data::Options data;
  train::RuntimeOptions runtime;
  train::CheckpointOptions checkpoint;
  train::LoggingOptions logging;
  std::vector<std::string> warnings;          // e.g. deprecated spellings that were accepted
  std::map<std::string, std::string> places;  // of the keys that were given: "run.yaml:7: group.key" by "group.key"
};

/// Reads a YAML or JSON file strictly and applies `overrides` ("group.key=value", values in YAML).
/// Throws: Error(kUsage) for an unknown key (with the nearest name), a wrong type, a duplicate key, a key that is not
/// supported, or an impossible combination; always with file:line, the key, expected and found.
RunConfig read_config(const std::string& path, const std::vector<std::string>& overrides);
/// The same from text; `name` stands for the file in messages.
RunConfig parse_config(const std::string& text, const std::string& name, const std::vector<std::string>& overrides);

/// Returns a key's name for messages: with its position ("run.yaml:7: group.key"), or "group.key".
using KeyLocation = std::function<std::string(std::string_view group, std::string_view key)>;

/// Applies the rules on task type, problem type and columns: classification without a label column gets Hugging Face's
/// name for it. The reader calls it, and so must code that sets a task or problem type later.
/// Throws: Error(kUsage) for a contradiction.
void resolve_columns(RunConfig& config, const KeyLocation& place);
/// Sets the name of the label column to Hugging Face's (`label`, or `labels` for multi-label) if none is set.
void name_label_column(RunConfig& config);

/// The resolved configuration as YAML with every key; reading it back gives the same configuration.
std::string to_yaml(const RunConfig& config);

/// Maps "group.key" to the value's text for every key, for comparing runs and naming differing keys.
std::map<std::string, std::string> flatten(const RunConfig& config);
/// The keys of flatten() with Identity::kCompared, whose values are part of the run identity.
std::map<std::string, std::string> compared_keys(const RunConfig& config);
/// The names "group.key" of the keys with Identity::kFree. Runs that differ only by them measure the same.
std::set<std::string> free_keys();

}  // namespace neoloom::launch
