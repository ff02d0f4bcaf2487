// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "model/model.h"

namespace neoloom::model {

// PiSSA and OLoRA train on W - s B0 A0 (Model::subtract). W + s (B A - B0 A0) is a plain LoRA on W of twice the rank,
// with A' = [A; A0] and B' = [B, -B0]: what PEFT writes with path_initial_model_for_weight_conversion. Files hold only
// that.

/// Returns the trained tensors by slot name, in host memory, those of A and B as A' and B' if the model subtracts.
std::vector<std::pair<std::string, at::Tensor>> plain_tensors(const Model& model, const at::Tensor& params);

/// Returns the model's options for these tensors: twice r, and the alpha that keeps the scaling.
LoraOptions plain_options(const Model& model);

}  // namespace neoloom::model
