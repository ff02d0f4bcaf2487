// SPDX-License-Identifier: Apache-2.0
#include "model/adapters/targets.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>

#include "runtime/core/error.h"

namespace neoloom::model {

namespace {

const char* site_path(LinearSite site) {
  switch (site) {
    case LinearSite::kQProj:
      return "attn.attention.q_proj";
    case LinearSite::kKProj:
      return "attn.attention.k_proj";
    case LinearSite::kVProj:
      return "attn.attention.v_proj";
    case LinearSite::kOutProj:
      return "attn.attention.out_proj";
    case LinearSite::kCFc:
      return "mlp.c_fc";
    case LinearSite::kCProj:
      return "mlp.c_proj";
  }
  core::fail(core::ErrorKind::kInternal, "linear site {} has no name", static_cast<int>(site));
}

bool is_all_linear(const std::string& entry) {
  std::string lower = entry;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  return lower == "all-linear";
}

bool matches(const std::string& module, const std::string& entry) {
  return is_all_linear(entry) || module == entry || module.ends_with("." + entry);
}

}  // namespace

std::string module_name(int64_t layer, LinearSite site) {
  return fmt::format("transformer.h.{}.{}", layer, site_path(site));
}

std::pair<int64_t, int64_t> features_of(const GptNeoConfig& config, LinearSite site) {
  if (site == LinearSite::kCFc) return {config.hidden_size, config.intermediate_size};
  if (site == LinearSite::kCProj) return {config.intermediate_size, config.hidden_size};
  return {config.hidden_size, config.hidden_size};
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
      "peft_config.target_modules: [{}] matches no module; expected some of q_proj, k_proj, v_proj, out_proj, "
      "c_fc, c_proj, full names from {} to {}, or all-linear",
      fmt::join(target_modules, ", "), module_name(0, LinearSite::kQProj),
      module_name(num_layers - 1, LinearSite::kCProj));
  return map;
}

}  // namespace neoloom::model
