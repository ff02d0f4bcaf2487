// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/optimizer_setup.h"

#include <string_view>

namespace neoloom::train {
namespace {

bool has_larger_rate(const model::ParameterSlot& slot) {
  return slot.name.find("lora_B") != std::string::npos || slot.shape.size() == 1;
}

}  // namespace

optim::OptimizerOptions optimizer_options(const Options& options) {
  optim::OptimizerOptions optimizer = optim::make_optimizer_options(options.optim, options.optim_args);
  optimizer.adamw = {.beta1 = options.adam_beta1,
                     .beta2 = options.adam_beta2,
                     .epsilon = options.adam_epsilon,
                     .weight_decay = options.weight_decay};
  return optimizer;
}

// The padding between tensors holds zeros, so a range may cover it.
std::vector<optim::ParameterRange> parameter_ranges(const Options& options, const model::ParameterLayout& layout) {
  const bool by_tensor = optimizer_options(options).kind == optim::OptimizerKind::kAdafactor;
  std::vector<optim::ParameterRange> ranges;
  for (const model::ParameterSlot& slot : layout.slots) {
    const int64_t end = slot.offset_elements + slot.elements();
    const double rate = has_larger_rate(slot) ? options.loraplus_lr_ratio.value_or(1.0) : 1.0;
    if (!by_tensor && !ranges.empty() && ranges.back().decay == slot.decay && ranges.back().rate == rate) {
      ranges.back().end = end;
    } else {
      const int64_t columns = by_tensor && slot.shape.size() == 2 ? slot.shape[1] : 0;
      ranges.push_back({slot.offset_elements, end, slot.decay, rate, columns});
    }
  }
  return ranges;
}

int64_t factored_elements(const model::ParameterLayout& layout) {
  int64_t sum = 0;
  for (const model::ParameterSlot& slot : layout.slots) sum += optim::factored_elements(slot.shape);
  return sum;
}

}  // namespace neoloom::train
