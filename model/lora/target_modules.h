// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/gpt_neo_config.h"
#include "model/options.h"
#include "model/parameter_table.h"

namespace neoloom::model {

/// PEFT's suffix of the name of an adapted linear, in keys of its own bias [out].
inline constexpr std::string_view kBaseLayerBiasSuffix = ".base_layer.bias";

/// The adapter of one linear. Rank 0: it has none.
struct AdapterShape {
  int64_t rank = 0;
  double scaling = 0.0;  // factor of B A x

  bool present() const { return rank > 0; }
  bool operator==(const AdapterShape&) const = default;
};
using BlockAdapters = std::array<AdapterShape, 6>;  // by site
using AdapterMap = std::vector<BlockAdapters>;      // [L]

/// The modules of a language model or a classifier that peft_config.modules_to_save may name, beside its head "score",
/// which PEFT also calls "classifier".
inline constexpr std::array<std::string_view, 3> kWholeModules = {"ln_f", "wte", "lm_head"};
/// Whether modules_to_save may name this module.
bool can_train_whole(std::string_view module);
/// Whether modules_to_save names this module. A classifier has no lm_head.
bool trains_whole(const LoraOptions& lora, std::string_view module);

/// Throws: Error(kUsage) for entries of trainable_token_indices that are no tokens of this model, and for modules that
/// train whole although they hold these tokens' rows: wte, or an lm_head that is tied to it.
void require_tokens(const LoraOptions& lora, const GptNeoConfig& config);

/// Whether peft_config.bias trains this parameter of a block with these adapters.
bool trains_bias(const LoraOptions& lora, const BlockAdapters& adapters, const BlockParameter& parameter);

/// Returns the entries of target_modules that match no module of the model, in their order.
std::vector<std::string> unmatched_targets(const ModuleChoice& target_modules, int64_t num_layers);

/// Says what is wrong with each entry of target_modules, exclude_modules, layers_to_transform, rank_pattern and
/// alpha_pattern that has no effect on this model, and where only the order of a pattern's keys decides, which adapter
/// files do not keep. For a target with the nearest name and all module names. Each text begins with the key's name.
/// Throws: Error(kUsage) for an expression that is none.
std::vector<std::string> mismatches(const LoraOptions& lora, int64_t num_layers);
/// Throws: Error(kUsage) with the first of mismatches().
void require_all_match(const LoraOptions& lora, int64_t num_layers);

/// Returns the adapter of every linear by PEFT's rules (peft/tuners/lora, 0.21): a name in a list matches the full
/// module name, or its end after a dot; exclude_modules wins over target_modules; layers_to_transform limits matches of
/// ends, not of full names; the first pattern that matches sets rank or alpha. Empty target_modules: no adapter.
/// Throws: Error(kUsage) when no module is left, listing the modules of the model.
AdapterMap adapter_map(const LoraOptions& lora, int64_t num_layers);

}  // namespace neoloom::model
