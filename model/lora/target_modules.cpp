// SPDX-License-Identifier: Apache-2.0
#include "model/lora/target_modules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <iterator>
#include <string_view>

#include "runtime/core/error.h"
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

bool matches(const std::string& module, const std::string& entry) {
  return is_all_linear(entry) || module == entry || module.ends_with("." + entry);
}

}  // namespace

std::vector<std::string> unmatched_targets(const std::vector<std::string>& target_modules, int64_t num_layers) {
  const auto found = [&](const std::string& entry) {
    for (int64_t layer = 0; layer < num_layers; ++layer) {
      for (const LinearSite site : kLinearSites) {
        if (matches(module_name(layer, site), entry)) return true;
      }
    }
    return false;
  };
  std::vector<std::string> unmatched;
  std::copy_if(target_modules.begin(), target_modules.end(), std::back_inserter(unmatched),
               [&](const std::string& entry) { return !found(entry); });
  return unmatched;
}

void require_all_match(const std::vector<std::string>& target_modules, int64_t num_layers) {
  const std::vector<std::string> unmatched = unmatched_targets(target_modules, num_layers);
  if (unmatched.empty()) return;
  const std::string& entry = unmatched.front();
  const std::string last = entry.substr(entry.rfind('.') + 1);
  std::string hint;
  if (last == "wte" || last == "wpe" || last == "lm_head" || last == "embed_tokens") {
    hint = "; embeddings and the language model's head stay as they are";
  } else if (last == "score" || last == "classifier") {
    hint = "; the head of a classifier is trained in full without being named";
  } else if (const std::string near = suggestion(last); !near.empty()) {
    hint = fmt::format("; did you mean {}?", near);
  }
  core::fail(core::ErrorKind::kUsage,
             "peft_config.target_modules: {} matches no module of this model{} Expected some of {}, "
             "full names from {} to {}, or all-linear",
             core::quoted(entry), hint.ends_with('?') ? hint : hint + ".", fmt::join(short_names(), ", "),
             module_name(0, LinearSite::kQProj), module_name(num_layers - 1, LinearSite::kCProj));
}

TargetMap match_targets(const std::vector<std::string>& target_modules, int64_t num_layers) {
  TargetMap map(static_cast<size_t>(num_layers));
  bool any = false;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    for (const LinearSite site : kLinearSites) {
      const std::string module = module_name(layer, site);
      const bool hit = std::any_of(target_modules.begin(), target_modules.end(),
                                   [&](const std::string& entry) { return matches(module, entry); });
      map[static_cast<size_t>(layer)][static_cast<size_t>(site)] = hit;
      any = any || hit;
    }
  }
  core::require(
      any || target_modules.empty(), core::ErrorKind::kUsage,
      "peft_config.target_modules: [{}] matches no module; "
      "expected some of q_proj, k_proj, v_proj, out_proj, c_fc, c_proj, full names from {} to {}, or all-linear",
      fmt::join(target_modules, ", "), module_name(0, LinearSite::kQProj),
      module_name(num_layers - 1, LinearSite::kCProj));
  return map;
}

}  // namespace neoloom::model
