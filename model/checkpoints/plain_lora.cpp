// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/plain_lora.h"

#include <ATen/ops/cat.h>

#include <cmath>

#include "model/parameter_table.h"

namespace neoloom::model {

std::vector<std::pair<std::string, at::Tensor>> plain_tensors(const Model& model, const at::Tensor& params) {
  const at::Tensor host = params.to(at::kCPU);
  const bool doubles = model.subtracted().defined();
  const at::Tensor initial = doubles ? model.subtracted().to(at::kCPU) : at::Tensor();
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const ParameterSlot& slot : model.layout().slots) {
    const auto view = [&](const at::Tensor& buffer) {
      return buffer.narrow(0, slot.offset_elements, slot.elements()).view(slot.shape);
    };
    at::Tensor value = view(host);
    if (doubles && slot.name.ends_with(kLoraASuffix)) value = at::cat({value, view(initial)}, 0);
    if (doubles && slot.name.ends_with(kLoraBSuffix)) value = at::cat({value, view(initial).neg()}, 1);
    tensors.emplace_back(slot.name, value);
  }
  return tensors;
}

LoraOptions plain_options(const Model& model) {
  LoraOptions lora = *model.setup().lora;
  if (!model.subtracted().defined()) return lora;
  const double factor = lora.use_rslora ? std::sqrt(2.0) : 2.0;
  lora.init_lora_weights = {};
  lora.r *= 2;
  lora.lora_alpha *= factor;
  for (auto& [module, rank] : lora.rank_pattern) rank *= 2;
  for (auto& [module, alpha] : lora.alpha_pattern) alpha *= factor;
  return lora;
}

}  // namespace neoloom::model
