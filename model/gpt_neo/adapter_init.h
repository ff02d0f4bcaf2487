// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "model/options.h"

namespace neoloom::model {

/// What the initial values of one adapter depend on.
struct AdapterStart {
  AdapterInit init;
  at::Tensor weight;  // [out, in] frozen, on any device; PiSSA and OLoRA decompose it on the CPU in fp32
  double scaling = 1.0;
  uint64_t seed = 0;
  std::string a_name, b_name;  // slot names, keys of the random numbers
};

/// Writes the initial A and B by PEFT's formulas (peft/tuners/lora/layer.py, 0.21), with random numbers of our own.
/// PiSSA and OLoRA give s B A = the part of the weight that Model::subtract takes out.
/// Shapes: a [r, in], b [out, r] fp32; r <= min(in, out) for these two, even for orthogonal.
/// Throws: Error(kWeights) when the weight cannot be decomposed.
void initialize_adapter(const AdapterStart& start, at::Tensor a, at::Tensor b);

}  // namespace neoloom::model
