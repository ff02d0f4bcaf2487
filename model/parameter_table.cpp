// SPDX-License-Identifier: Apache-2.0
#include "model/parameter_table.h"

#include <fmt/format.h>

namespace neoloom::model {

namespace {

/// Module of each linear inside a block, in the order of LinearSite.
constexpr std::array<const char*, 6> kModules = {"attn.attention.q_proj",
                                                 "attn.attention.k_proj",
                                                 "attn.attention.v_proj",
                                                 "attn.attention.out_proj",
                                                 "mlp.c_fc",
                                                 "mlp.c_proj"};

}  // namespace

std::string module_name(int64_t layer, LinearSite site) {
  return fmt::format("transformer.h.{}.{}", layer, kModules[static_cast<size_t>(site)]);
}

bool is_of_adapter(std::string_view name) {
  return name.ends_with(kLoraASuffix) || name.ends_with(kLoraBSuffix) || name.ends_with(kMagnitudeSuffix) ||
         name.ends_with(kLoraBiasSuffix);
}

std::pair<int64_t, int64_t> features_of(const GptNeoConfig& config, LinearSite site) {
  if (site == LinearSite::kCFc) return {config.hidden_size, config.intermediate_size};
  if (site == LinearSite::kCProj) return {config.intermediate_size, config.hidden_size};
  return {config.hidden_size, config.hidden_size};
}

std::string parameter_name(int64_t layer, const BlockParameter& parameter) {
  const char* const kind = parameter.is_bias ? "bias" : "weight";
  if (parameter.layer == BlockParameter::Layer::kLinear) {
    return fmt::format("{}.{}", module_name(layer, parameter.site), kind);
  }
  const char* const norm = parameter.layer == BlockParameter::Layer::kLn1 ? "ln_1" : "ln_2";
  return fmt::format("transformer.h.{}.{}.{}", layer, norm, kind);
}

std::vector<int64_t> parameter_shape(const GptNeoConfig& config, const BlockParameter& parameter) {
  if (parameter.layer != BlockParameter::Layer::kLinear) return {config.hidden_size};
  const auto [in, out] = features_of(config, parameter.site);
  return parameter.is_bias ? std::vector<int64_t>{out} : std::vector<int64_t>{out, in};
}

}  // namespace neoloom::model
