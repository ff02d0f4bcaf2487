// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "model/checkpoints/adapter_folder.h"
#include "model/lora/target_modules.h"
#include "runtime/core/error.h"
#include "runtime/core/json.h"

namespace neoloom::model {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

/// Returns the modules as PEFT writes them: sorted, with the shorthand expanded.
json written_modules(const ModuleChoice& choice) {
  if (choice.is_expression) return choice.names.front();
  std::vector<std::string> targets = choice.names;
  if (targets == std::vector<std::string>{"all-linear"}) {
    targets = {"c_fc", "c_proj", "k_proj", "out_proj", "q_proj", "v_proj"};
  }
  std::sort(targets.begin(), targets.end());
  return targets;
}

/// Returns 16 rather than 16.0, as PEFT writes an integer.
json number(double value) {
  const bool whole = std::floor(value) == value && std::abs(value) < 1e15;
  return whole ? json(static_cast<int64_t>(value)) : json(value);
}

json written_init(const AdapterInit& init) {
  const std::string name = init_name(init);
  return name == "true" || name == "false" ? json(name == "true") : json(name);
}

/// Returns the modules that train whole, for a classifier both of PEFT's names of its head; null without any.
json written_whole_modules(const LoraOptions& lora, bool classifies) {
  json names = json::array();
  for (const std::string_view module : kWholeModules) {
    if (trains_whole(lora, module)) names.push_back(module);
  }
  if (classifies) names.insert(names.end(), {"classifier", "score"});
  return names.empty() ? json(nullptr) : names;
}

template <typename T>
json written_pattern(const ModulePattern<T>& pattern) {
  json result = json::object();
  for (const auto& [module, value] : pattern) result[module] = number(static_cast<double>(value));
  return result;
}

/// Writes what LoraConfig has beside the usual, unless it is empty.
void add_limits_and_patterns(const LoraOptions& lora, json& config) {
  if (lora.lora_bias) config["lora_bias"] = true;
  if (!lora.exclude_modules.empty()) config["exclude_modules"] = written_modules(lora.exclude_modules);
  if (!lora.layers_to_transform.empty()) config["layers_to_transform"] = lora.layers_to_transform;
  if (!lora.layers_pattern.empty()) config["layers_pattern"] = lora.layers_pattern;
  if (!lora.rank_pattern.empty()) config["rank_pattern"] = written_pattern(lora.rank_pattern);
  if (!lora.trainable_token_indices.empty()) config["trainable_token_indices"] = lora.trainable_token_indices;
  if (!lora.alpha_pattern.empty()) config["alpha_pattern"] = written_pattern(lora.alpha_pattern);
}

ordered_json parse_base(const GptNeoConfig& config) {
  return core::parse_json<ordered_json>(config.json, "config.json of the base model", core::ErrorKind::kWeights);
}

void set_labels(ordered_json& config, const ModelConfigText& parts) {
  const std::vector<std::string>& labels = parts.description.labels;
  core::require(labels.empty() || static_cast<int64_t>(labels.size()) == parts.num_labels, core::ErrorKind::kInternal,
                "{} label names for {} labels", labels.size(), parts.num_labels);
  ordered_json id2label = ordered_json::object();
  ordered_json label2id = ordered_json::object();
  for (int64_t id = 0; id < parts.num_labels; ++id) {
    const std::string name = labels.empty() ? fmt::format("LABEL_{}", id) : labels[static_cast<size_t>(id)];
    id2label[std::to_string(id)] = name;
    label2id[name] = id;
  }
  config["id2label"] = std::move(id2label);
  config["label2id"] = std::move(label2id);
  config["num_labels"] = parts.num_labels;
  const std::string& type = parts.description.problem_type;
  config["problem_type"] = type.empty() ? ordered_json(nullptr) : ordered_json(type);
}

}  // namespace

std::string adapter_config_text(const LoraOptions& lora, Head head, const std::string& base_model_name,
                                const std::string& revision) {
  const bool classifies = head != Head::kCausalLm;
  json config;  // sorted by key
  config["base_model_name_or_path"] = base_model_name;
  config["bias"] = lora.bias;
  config["fan_in_fan_out"] = false;
  config["inference_mode"] = true;
  config["init_lora_weights"] = written_init(lora.init_lora_weights);
  config["lora_alpha"] = number(lora.lora_alpha);
  config["lora_dropout"] = lora.lora_dropout;
  config["modules_to_save"] = written_whole_modules(lora, classifies);
  config["peft_type"] = "LORA";
  config["peft_version"] = "0.21.2";  // the release whose format this is
  config["r"] = lora.r;
  config["revision"] = revision.empty() ? json(nullptr) : json(revision);
  config["target_modules"] = written_modules(lora.target_modules);
  config["task_type"] = classifies ? "SEQ_CLS" : "CAUSAL_LM";
  config["use_dora"] = lora.use_dora;
  config["use_rslora"] = lora.use_rslora;
  add_limits_and_patterns(lora, config);
  return config.dump(2) + "\n";
}

std::string model_config_text(const ModelConfigText& parts) {
  ordered_json config = parse_base(parts.base);
  const bool classifies = parts.head != Head::kCausalLm;
  config["architectures"] = {classifies ? "GPTNeoForSequenceClassification" : "GPTNeoForCausalLM"};
  if (classifies) set_labels(config, parts);
  const int64_t pad = parts.description.pad_token_id;
  if (pad >= 0) config["pad_token_id"] = pad;
  if (parts.untied_lm_head) config["tie_word_embeddings"] = false;
  if (!parts.dtype.empty()) {
    config.erase("torch_dtype");  // its name before transformers 5
    config["dtype"] = parts.dtype;
  }
  return config.dump(2) + "\n";
}

}  // namespace neoloom::model
