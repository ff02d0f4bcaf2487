// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "model/gpt_neo_config.h"
#include "model/options.h"

namespace neoloom::model {

/// The six linears of a block, in the order of slots and dropout sites.
enum class LinearSite { kQProj, kKProj, kVProj, kOutProj, kCFc, kCProj };
inline constexpr std::array<LinearSite, 6> kLinearSites = {LinearSite::kQProj, LinearSite::kKProj,
                                                           LinearSite::kVProj, LinearSite::kOutProj,
                                                           LinearSite::kCFc,   LinearSite::kCProj};

/// Hugging Face's module name, e.g. "transformer.h.0.attn.attention.q_proj".
std::string module_name(int64_t layer, LinearSite site);

/// (in, out) of a linear.
std::pair<int64_t, int64_t> features_of(const GptNeoConfig& config, LinearSite site);

/// One flag per linear of every block: does LoRA sit there?
using TargetMap = std::vector<std::array<bool, 6>>;  // [L][site]

/// The entries of `target_modules` that match no module of the model, in their order.
std::vector<std::string> unmatched_targets(const std::vector<std::string>& target_modules, int64_t num_layers);

/// Throws: Error(kUsage) for the first entry that matches no module, with the nearest name and all names there are.
void require_all_match(const std::vector<std::string>& target_modules, int64_t num_layers);

/// PEFT's rule: an entry matches the full module name, or its end after a dot; "all-linear" (any case) matches all.
/// An empty list means a frozen model without LoRA.
/// Throws: Error(kUsage) when entries match nothing, naming the modules there are.
TargetMap match_targets(const std::vector<std::string>& target_modules, int64_t num_layers);

}  // namespace neoloom::model
