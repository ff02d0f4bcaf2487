// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

#include "model/checkpoints/adapter_folder.h"
#include "model/checkpoints/safetensors.h"
#include "model/checkpoints/strict_json.h"
#include "model/lora/target_modules.h"
#include "model/parameter_table.h"
#include "runtime/core/error.h"
#include "runtime/core/expression.h"
#include "runtime/core/json.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;
using nlohmann::json;

/// Returns true for keys that are read below, and for keys that change nothing for a GPT-Neo LoRA, whatever they hold.
bool is_known(std::string_view key) {
  static constexpr std::string_view kKeys[] = {"alpha_pattern",
                                               "auto_mapping",
                                               "base_model_name_or_path",
                                               "bias",
                                               "exclude_modules",
                                               "fan_in_fan_out",
                                               "inference_mode",
                                               "init_lora_weights",
                                               "layers_pattern",
                                               "layers_to_transform",
                                               "lora_alpha",
                                               "lora_bias",
                                               "lora_dropout",
                                               "megatron_core",
                                               "modules_to_save",
                                               "peft_type",
                                               "peft_version",
                                               "qalora_group_size",
                                               "r",
                                               "rank_pattern",
                                               "revision",
                                               "runtime_config",
                                               "target_modules",
                                               "task_type",
                                               "trainable_token_indices",
                                               "use_dora",
                                               "use_rslora"};
  return std::find(std::begin(kKeys), std::end(kKeys), key) != std::end(kKeys);
}

bool is_default(const json& value) {
  return value.is_null() || value == json(false) || ((value.is_object() || value.is_array()) && value.empty());
}

/// Reads one adapter_config.json. Its errors name file and key.
class AdapterConfig {
 public:
  explicit AdapterConfig(const std::string& path) : path_(path), document_(read_strict_json(path)) {}

  json at(const char* key) const {
    const auto found = document_.find(key);
    return found == document_.end() ? json() : *found;
  }

  [[noreturn]] void refuse(const char* key, const std::string& expected) const {
    core::fail(ErrorKind::kWeights, "{}: {} is {}: expected {}", path_, key, at(key).dump(), expected);
  }

  std::string text(const char* key) const {
    if (at(key).is_null()) return "";
    if (!at(key).is_string()) refuse(key, "a string");
    return at(key).get<std::string>();
  }

  double number(const char* key, double fallback) const {
    if (at(key).is_null()) return fallback;
    if (!at(key).is_number() || !std::isfinite(at(key).get<double>())) refuse(key, "a number");
    return at(key).get<double>();
  }

  bool flag(const char* key) const {
    if (at(key).is_null()) return false;
    if (!at(key).is_boolean()) refuse(key, "true or false");
    return at(key).get<bool>();
  }

  std::vector<std::string> names(const char* key) const {
    std::vector<std::string> list;
    if (at(key).is_null()) return list;
    if (!at(key).is_array()) refuse(key, "a list of names");
    for (const json& name : at(key)) {
      if (!name.is_string()) refuse(key, "a list of names");
      list.push_back(name.get<std::string>());
    }
    return list;
  }

  /// Reads {module: value}. `expected` describes a value that `accepted` takes.
  template <typename T, typename Accepted>
  ModulePattern<T> pattern(const char* key, const char* expected, Accepted accepted) const {
    ModulePattern<T> result;
    const json value = at(key);
    if (value.is_null()) return result;
    if (!value.is_object()) refuse(key, expected);
    for (const auto& item : value.items()) {
      const json& one = item.value();
      if (!one.is_number() || !accepted(one.template get<double>())) refuse(key, expected);
      const core::Expression valid(item.key(), fmt::format("{}: {}", path_, key), ErrorKind::kWeights);
      result.emplace_back(item.key(), static_cast<T>(one.template get<double>()));
    }
    return result;
  }

  void refuse_unsupported() const {
    if (text("peft_type") != "LORA") refuse("peft_type", "\"LORA\"");
    const std::string task = text("task_type");
    if (!task.empty() && task != "SEQ_CLS" && task != "CAUSAL_LM") refuse("task_type", "SEQ_CLS or CAUSAL_LM");
    for (const std::string& name : names("modules_to_save")) {
      if (!can_train_whole(name)) {
        refuse("modules_to_save", fmt::format("only score, classifier, {}", fmt::join(kWholeModules, ", ")));
      }
    }
    for (const auto& [key, value] : document_.items()) {
      if (!is_known(key) && !is_default(value)) {
        refuse(key.c_str(), fmt::format("its default: this is not supported; {}", kMergeInPeft));
      }
    }
  }

  std::string bias() const {
    const std::string value = text("bias");
    if (!value.empty() && value != "none" && value != "all" && value != "lora_only") {
      refuse("bias", "none, all or lora_only");
    }
    return value.empty() ? "none" : value;
  }

  /// Reads trainable_token_indices: a list, or {wte: list}.
  std::vector<int64_t> tokens() const {
    constexpr const char* kKey = "trainable_token_indices";
    json value = at(kKey);
    if (value.is_object()) {
      if (value.empty()) return {};
      const std::string module = value.begin().key();
      if (value.size() > 1 || (module != "wte" && module != "transformer.wte")) {
        refuse(kKey, fmt::format("a list of tokens, or one for wte alone; {}", kMergeInPeft));
      }
      value = json(value.begin().value());
    }
    std::vector<int64_t> tokens;
    if (value.is_null()) return tokens;
    if (!value.is_array()) refuse(kKey, "a list of tokens");
    tokens.reserve(value.size());
    for (const json& token : value) {
      const bool valid = core::json_integer_within(token, 0, INT64_MAX);
      if (!valid || std::find(tokens.begin(), tokens.end(), token.get<int64_t>()) != tokens.end()) {
        refuse(kKey, "different token ids, of at least 0");
      }
      tokens.push_back(token.get<int64_t>());
    }
    return tokens;
  }

  /// Reads init_lora_weights. EVA only chooses initial values, so that its adapters are plain ones.
  AdapterInit init() const {
    constexpr const char* kExpected =
        "true, false, gaussian, orthogonal, pissa, olora or eva, whose base model is known here; convert it once in "
        "PEFT: save_pretrained(FOLDER, path_initial_model_for_weight_conversion=...)";
    const json value = at("init_lora_weights");
    if (value.is_null() || value == "eva") return {};
    if (value.is_boolean()) return init_from_name(value.get<bool>() ? "true" : "false");
    if (!value.is_string()) refuse("init_lora_weights", kExpected);
    AdapterInit init;
    try {
      init = init_from_name(value.get<std::string>());
    } catch (const core::Error&) {
      refuse("init_lora_weights", kExpected);
    }
    if (init.iterations >= 0) refuse("init_lora_weights", kExpected);  // PEFT's random numbers decided its base
    if (init.splits_weights() && flag("use_dora")) {
      refuse("init_lora_weights", "true, as use_dora is true: DoRA on a changed base is not supported");
    }
    return init;
  }

 private:
  std::string path_;
  json document_;
};

/// Returns the modules that have LoRA tensors. That is exact, whatever expression chose them.
std::vector<std::string> targets_of_tensors(const std::string& folder) {
  const SafetensorsFile file((fs::path(folder) / kAdapterTensorFile).string());
  std::vector<std::string> targets;
  for (const auto& [stored, info] : file.tensors()) {
    const std::string name = saved_key(stored);
    if (!name.starts_with(kPeftPrefix) || !name.ends_with(kLoraASuffix)) continue;
    targets.push_back(name.substr(kPeftPrefix.size(), name.size() - kPeftPrefix.size() - kLoraASuffix.size()));
  }
  core::require(!targets.empty(), ErrorKind::kWeights, "{}: expected tensors named {}...{}", file.path(), kPeftPrefix,
                kLoraASuffix);
  return targets;
}

void refuse_adapted_embeddings(const std::string& folder) {
  const SafetensorsFile file((fs::path(folder) / kAdapterTensorFile).string());
  for (const auto& item : file.tensors()) {
    const std::string& name = item.first;
    for (const char* module : {"wte", "wpe", "lm_head"}) {
      core::require(name.find(fmt::format(".{}.lora_", module)) == std::string::npos, ErrorKind::kWeights,
                    "{}: LoRA on {} is not supported ({}); {}. If the base ties lm_head to wte, untie them before PEFT "
                    "loads the adapter, or the merge changes both: model.lm_head.weight = torch.nn.Parameter("
                    "model.lm_head.weight.detach().clone()); model.config.tie_word_embeddings = False. A new adapter "
                    "trains such a module whole with modules_to_save: [wte] or [lm_head]",
                    file.path(), module, name, kMergeInPeft);
    }
  }
}

int64_t score_rows(const std::string& folder) {
  const SafetensorsFile file((fs::path(folder) / kAdapterTensorFile).string());
  for (const auto& [name, info] : file.tensors()) {
    if (saved_key(name) == fmt::format("{}{}", kPeftPrefix, kScoreName) && !info.shape.empty())
      return info.shape.front();
  }
  return 0;
}

std::vector<std::string> read_targets(const AdapterConfig& config, const std::string& folder) {
  const json targets = config.at("target_modules");
  for (const char* limit : {"exclude_modules", "layers_to_transform"}) {
    if (!is_default(config.at(limit))) return targets_of_tensors(folder);
  }
  if (targets.is_null()) return LoraOptions{}.target_modules.names;  // PEFT's own default for gpt_neo
  if (targets.is_string()) return targets_of_tensors(folder);
  std::vector<std::string> names = config.names("target_modules");
  if (names.empty()) config.refuse("target_modules", "at least one name");
  return names;
}

/// Reads labels and padding id from a config.json beside the adapter. PEFT itself does not write one.
void read_head(const std::string& path, AdapterFolder& folder) {
  if (!fs::exists(path)) return;
  const json config = read_strict_json(path);
  const json pad = config.value("pad_token_id", json());
  if (core::json_integer_within(pad, 0, INT64_MAX)) folder.pad_token_id = pad.get<int64_t>();
  const json problem = config.value("problem_type", json());
  if (problem.is_string()) folder.problem_type = problem.get<std::string>();
  const json labels = config.value("id2label", json());
  if (!labels.is_object()) return;
  for (size_t id = 0; id < labels.size(); ++id) {
    const auto found = labels.find(std::to_string(id));
    core::require(found != labels.end() && found->is_string(), ErrorKind::kWeights,
                  "{}: id2label has {} entries and none for {}", path, labels.size(), id);
    folder.labels.push_back(found->get<std::string>());
  }
}

}  // namespace

AdapterFolder read_adapter_folder(const std::string& folder) {
  const fs::path root(folder);
  const std::string path = (root / kAdapterConfigFile).string();
  core::require(fs::exists(path), ErrorKind::kWeights, "{}: expected an adapter folder with {}", folder,
                kAdapterConfigFile);
  const AdapterConfig config(path);
  config.refuse_unsupported();
  core::require(fs::exists(root / kAdapterTensorFile), ErrorKind::kWeights, "{}: there is no {}{}", folder,
                kAdapterTensorFile,
                fs::exists(root / "adapter_model.bin")
                    ? "; the pickled adapter_model.bin can run code and is not read: "
                      "load it once with PEFT and save it again (save_pretrained(FOLDER, safe_serialization=True))"
                    : "");
  refuse_adapted_embeddings(folder);

  AdapterFolder result;
  result.lora.task_type = config.text("task_type");
  result.lora.r = static_cast<int64_t>(config.number("r", 8));
  if (result.lora.r < 1 || static_cast<double>(result.lora.r) != config.number("r", 8)) {
    config.refuse("r", "a whole number above 0");
  }
  result.lora.lora_alpha = config.number("lora_alpha", 8);
  result.lora.lora_dropout = config.number("lora_dropout", 0);
  if (result.lora.lora_dropout < 0 || result.lora.lora_dropout >= 1)
    config.refuse("lora_dropout", "a number of at least 0 and below 1");
  result.lora.use_rslora = config.flag("use_rslora");
  result.lora.init_lora_weights = config.init();
  result.lora.use_dora = config.flag("use_dora");
  result.lora.bias = config.bias();
  result.lora.lora_bias = config.flag("lora_bias");
  result.lora.target_modules = {read_targets(config, folder)};
  result.lora.rank_pattern =
      config.pattern<int64_t>("rank_pattern", "modules with whole numbers above 0",
                              [](double value) { return value >= 1 && value == std::floor(value) && value < 0x1p31; });
  result.lora.alpha_pattern = config.pattern<double>("alpha_pattern", "modules with numbers above 0",
                                                     [](double value) { return value > 0 && std::isfinite(value); });
  result.lora.modules_to_save = config.names("modules_to_save");
  result.lora.trainable_token_indices = config.tokens();
  result.base_model_name_or_path = config.text("base_model_name_or_path");
  result.revision = config.text("revision");
  result.score_rows = score_rows(folder);
  read_head((root / kConfigFile).string(), result);
  return result;
}

}  // namespace neoloom::model
