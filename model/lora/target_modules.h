// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "model/gpt_neo_config.h"
#include "model/options.h"
#include "model/parameter_table.h"

namespace neoloom::model {

/// One flag per linear of every block: whether it has a LoRA adapter.
using TargetMap = std::vector<std::array<bool, 6>>;  // [L][site]

/// Returns the entries of `target_modules` that match no module of the model, in their order.
std::vector<std::string> unmatched_targets(const std::vector<std::string>& target_modules, int64_t num_layers);

/// Throws: Error(kUsage) for the first entry that matches no module, with the nearest name and all module names.
void require_all_match(const std::vector<std::string>& target_modules, int64_t num_layers);

/// PEFT's rule: an entry matches the full module name, or its end after a dot; "all-linear" (any case) matches all.
/// An empty list means a frozen model without LoRA.
/// Throws: Error(kUsage) when entries match nothing, listing the modules of the model.
TargetMap match_targets(const std::vector<std::string>& target_modules, int64_t num_layers);

}  // namespace neoloom::model
