// SPDX-License-Identifier: Apache-2.0
#include "model/lora/target_modules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "runtime/core/error.h"
#include "runtime/core/expression.h"
#include "runtime/core/text.h"

namespace neoloom::model {

namespace {

bool is_all_linear(const std::string& entry) {
  std::string lower = entry;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  return lower == "all-linear";
}

/// Returns the short names of the linears, as target_modules has them.
std::vector<std::string> short_names() {
  std::vector<std::string> names;
  for (const LinearSite site : kLinearSites) {
    const std::string path = module_name(0, site);
    names.push_back(path.substr(path.rfind('.') + 1));
  }
  return names;
}

/// Returns the linear that a name of another architecture stands for, or the nearest name; "" when nothing is near.
std::string suggestion(const std::string& name) {
  static constexpr std::pair<std::string_view, std::string_view> kOthers[] = {
      {"o_proj", "out_proj"},
      {"dense", "out_proj"},
      {"up_proj", "c_fc"},
      {"gate_proj", "c_fc"},
      {"fc1", "c_fc"},
      {"fc_in", "c_fc"},
      {"down_proj", "c_proj"},
      {"fc2", "c_proj"},
      {"fc_out", "c_proj"},
      {"dense_h_to_4h", "c_fc"},
      {"dense_4h_to_h", "c_proj"},
      {"c_attn", "q_proj, k_proj, v_proj"},
      {"query_key_value", "q_proj, k_proj, v_proj"}};
  for (const auto& [theirs, ours] : kOthers) {
    if (name == theirs) return std::string(ours);
  }
  return core::nearest(name, short_names());
}

/// Decides whether modules belong to a ModuleChoice. `key` names the configuration key in messages.
class ModuleMatcher {
 public:
  ModuleMatcher(const ModuleChoice& choice, const char* key) : names_(choice.names) {
    if (choice.is_expression) expression_.emplace(choice.names.front(), key, core::ErrorKind::kUsage);
  }

  bool matches(const std::string& module) const {
    if (expression_) return expression_->matches(module);
    return std::any_of(names_.begin(), names_.end(), [&](const auto& name) { return matches_name(module, name); });
  }

  bool names_in_full(const std::string& module) const {
    return std::find(names_.begin(), names_.end(), module) != names_.end();
  }

 private:
  static bool matches_name(const std::string& module, const std::string& name) {
    return is_all_linear(name) || module == name || module.ends_with("." + name);
  }

  std::vector<std::string> names_;
  std::optional<core::Expression> expression_;
};

/// Returns the value for a module of the first pattern that matches.
template <typename T>
class PatternMatcher {
 public:
  PatternMatcher(const ModulePattern<T>& pattern, const char* key) {
    for (const auto& [name, value] : pattern)
      entries_.emplace_back(core::Expression(fmt::format("(.*\\.)?({})", name), key, core::ErrorKind::kUsage), value);
  }

  T value_of(const std::string& module, T otherwise) const {
    const auto found =
        std::find_if(entries_.begin(), entries_.end(), [&](const auto& entry) { return entry.first.matches(module); });
    return found == entries_.end() ? otherwise : found->second;
  }

 private:
  std::vector<std::pair<core::Expression, T>> entries_;
};

/// Calls visit(layer, site, module name) for every linear.
template <typename Visit>
void for_each_linear(int64_t num_layers, Visit visit) {
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    for (const LinearSite site : kLinearSites) visit(layer, site, module_name(layer, site));
  }
}

bool any_matches(const ModuleMatcher& matcher, int64_t num_layers) {
  bool any = false;
  for_each_linear(num_layers, [&](int64_t, LinearSite, const std::string& module) { any |= matcher.matches(module); });
  return any;
}

/// Says that an entry of target_modules matches nothing.
std::string no_target(const std::string& entry, int64_t num_layers) {
  const std::string last = entry.substr(entry.rfind('.') + 1);
  std::string hint;
  if (last == "wte" || last == "wpe" || last == "lm_head" || last == "embed_tokens") {
    hint =
        "; embeddings and the language model's head get no LoRA, but modules_to_save: [wte] or [lm_head] trains one "
        "whole";
  } else if (last == "score" || last == "classifier") {
    hint = "; the head of a classifier is trained in full without being named";
  } else if (const std::string near = suggestion(last); !near.empty()) {
    hint = fmt::format("; did you mean {}?", near);
  }
  return fmt::format(
      "peft_config.target_modules: {} matches no module of this model{} Expected some of {}, "
      "full names from {} to {}, all-linear, or a regular expression over the full name",
      core::quoted(entry), hint.ends_with('?') ? hint : hint + ".", fmt::join(short_names(), ", "),
      module_name(0, LinearSite::kQProj), module_name(num_layers - 1, LinearSite::kCProj));
}

std::string no_effect(const char* key, const std::string& entry) {
  return fmt::format(
      "peft_config.{}: {} matches none of the modules that have an adapter. Remove it, or correct the name", key,
      core::quoted(entry));
}

bool transforms(const LoraOptions& lora, int64_t layer) {
  const std::vector<int64_t>& layers = lora.layers_to_transform;
  return layers.empty() || std::find(layers.begin(), layers.end(), layer) != layers.end();
}

template <typename T>
std::vector<std::string> keys_of(const ModulePattern<T>& pattern) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : pattern) keys.push_back(key);
  return keys;
}

/// Whether one of the adapters has a module that matches `pattern`, as PEFT takes keys of rank_pattern.
bool adapts(const AdapterMap& map, const std::string& pattern) {
  const PatternMatcher<bool> matcher({{pattern, true}}, "peft_config");
  bool any = false;
  for_each_linear(static_cast<int64_t>(map.size()), [&](int64_t layer, LinearSite site, const std::string& module) {
    const bool present = map[static_cast<size_t>(layer)][static_cast<size_t>(site)].present();
    any |= present && matcher.value_of(module, false);
  });
  return any;
}

}  // namespace

std::vector<std::string> unmatched_targets(const ModuleChoice& target_modules, int64_t num_layers) {
  std::vector<std::string> unmatched;
  std::copy_if(target_modules.names.begin(), target_modules.names.end(), std::back_inserter(unmatched),
               [&](const std::string& name) {
                 const ModuleChoice alone{{name}, target_modules.is_expression};
                 return !any_matches(ModuleMatcher(alone, "peft_config.target_modules"), num_layers);
               });
  return unmatched;
}

std::vector<std::string> mismatches(const LoraOptions& lora, int64_t num_layers) {
  std::vector<std::string> found;
  for (const std::string& entry : unmatched_targets(lora.target_modules, num_layers)) {
    found.push_back(no_target(entry, num_layers));
  }
  for (const int64_t layer : lora.layers_to_transform) {
    if (layer < num_layers) continue;
    found.push_back(fmt::format("peft_config.layers_to_transform: {} is no block of this model; expected 0 to {}",
                                layer, num_layers - 1));
  }
  LoraOptions settled = lora;
  if (!found.empty()) {  // what the others match depends on the correct ones, so any module will do
    settled.target_modules = {{"all-linear"}};
    settled.layers_to_transform.clear();
  }
  const ModuleMatcher targets(settled.target_modules, "peft_config.target_modules");
  for (const std::string& name : lora.exclude_modules.names) {
    const ModuleMatcher excluded({{name}, lora.exclude_modules.is_expression}, "peft_config.exclude_modules");
    bool any = false;
    for_each_linear(num_layers, [&](int64_t, LinearSite, const std::string& module) {
      any |= targets.matches(module) && excluded.matches(module);
    });
    if (!any) found.push_back(no_effect("exclude_modules", name));
  }
  if (!found.empty()) settled.exclude_modules = {};
  const AdapterMap map = adapter_map(settled, num_layers);
  LoraOptions sorted = settled;
  std::sort(sorted.rank_pattern.begin(), sorted.rank_pattern.end());
  std::sort(sorted.alpha_pattern.begin(), sorted.alpha_pattern.end());
  if (adapter_map(sorted, num_layers) != map) {
    found.emplace_back(
        "peft_config.rank_pattern, alpha_pattern: some modules match two keys, and the order of the keys decides. "
        "Adapter files sort their keys, which would give other values: write keys that match different modules");
  }
  for (const std::string& key : keys_of(lora.rank_pattern)) {
    if (!adapts(map, key)) found.push_back(no_effect("rank_pattern", key));
  }
  for (const std::string& key : keys_of(lora.alpha_pattern)) {
    if (!adapts(map, key)) found.push_back(no_effect("alpha_pattern", key));
  }
  return found;
}

void require_all_match(const LoraOptions& lora, int64_t num_layers) {
  const std::vector<std::string> found = mismatches(lora, num_layers);
  core::require(found.empty(), core::ErrorKind::kUsage, "{}", found.empty() ? "" : found.front());
}

bool can_train_whole(std::string_view module) {
  return module == "score" || module == "classifier" ||
         std::find(kWholeModules.begin(), kWholeModules.end(), module) != kWholeModules.end();
}

bool trains_whole(const LoraOptions& lora, std::string_view module) {
  return std::find(lora.modules_to_save.begin(), lora.modules_to_save.end(), module) != lora.modules_to_save.end();
}

void require_tokens(const LoraOptions& lora, const GptNeoConfig& config) {
  const std::vector<int64_t>& tokens = lora.trainable_token_indices;
  for (const int64_t token : tokens) {
    core::require(token >= 0 && token < config.vocab_size, core::ErrorKind::kUsage,
                  "peft_config.trainable_token_indices: {} is no token of this model; expected 0 to {}", token,
                  config.vocab_size - 1);
  }
  const bool head = config.tie_word_embeddings && trains_whole(lora, "lm_head");
  core::require(tokens.empty() || (!head && !trains_whole(lora, "wte")), core::ErrorKind::kUsage,
                "peft_config.trainable_token_indices: not together with modules_to_save: [{}], which trains the rows "
                "of all tokens{}; remove one of them",
                head ? "lm_head" : "wte", head ? ", as the model's lm_head is tied to wte" : "");
}

bool trains_bias(const LoraOptions& lora, const BlockAdapters& adapters, const BlockParameter& parameter) {
  if (!parameter.is_bias) return false;
  if (lora.bias == "lora_only") {
    return parameter.layer == BlockParameter::Layer::kLinear && adapters[static_cast<size_t>(parameter.site)].present();
  }
  return lora.bias == "all";
}

AdapterMap adapter_map(const LoraOptions& lora, int64_t num_layers) {
  const ModuleMatcher targets(lora.target_modules, "peft_config.target_modules");
  const ModuleMatcher excluded(lora.exclude_modules, "peft_config.exclude_modules");
  const PatternMatcher<int64_t> ranks(lora.rank_pattern, "peft_config.rank_pattern");
  const PatternMatcher<double> alphas(lora.alpha_pattern, "peft_config.alpha_pattern");
  AdapterMap map(static_cast<size_t>(num_layers));
  bool any = false;
  for_each_linear(num_layers, [&](int64_t layer, LinearSite site, const std::string& module) {
    const bool in_layer = transforms(lora, layer) || targets.names_in_full(module);
    if (!targets.matches(module) || !in_layer || excluded.matches(module)) return;
    const int64_t rank = ranks.value_of(module, lora.r);
    map[static_cast<size_t>(layer)][static_cast<size_t>(site)] = {
        rank, lora.scaling(rank, alphas.value_of(module, lora.lora_alpha))};
    any = true;
  });
  core::require(
      any || lora.target_modules.empty(), core::ErrorKind::kUsage,
      "peft_config.target_modules: [{}] matches no module{}; "
      "expected some of q_proj, k_proj, v_proj, out_proj, c_fc, c_proj, full names from {} to {}, or all-linear",
      fmt::join(lora.target_modules.names, ", "),
      lora.exclude_modules.empty() && lora.layers_to_transform.empty()
          ? ""
          : " that exclude_modules and layers_to_transform leave",
      module_name(0, LinearSite::kQProj), module_name(num_layers - 1, LinearSite::kCProj));
  return map;
}

}  // namespace neoloom::model
