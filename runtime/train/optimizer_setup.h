// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "model/parameter_layout.h"
#include "runtime/optim/optimizer_options.h"
#include "runtime/train/options.h"

namespace neoloom::train {

/// Throws: Error(kUsage) for an unknown optimizer or argument.
optim::OptimizerOptions optimizer_options(const Options& options);

/// Returns what the optimizer treats alike: neighbouring tensors of one weight decay and learning rate, for Adafactor
/// each tensor by itself. With options.loraplus_lr_ratio, lora_B and vectors have the larger rate, as in PEFT's
/// create_loraplus_optimizer.
std::vector<optim::ParameterRange> parameter_ranges(const Options& options, const model::ParameterLayout& layout);

/// Elements of Adafactor's second moments.
int64_t factored_elements(const model::ParameterLayout& layout);

}  // namespace neoloom::train
