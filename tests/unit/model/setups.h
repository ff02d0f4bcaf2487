// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>
#include <vector>

#include "model/cuda/attention_choice.h"
#include "model/gpt_neo/weights.h"
#include "tests/unit/model/random_model.h"
#include "tests/unit/model/reference_operators.h"

namespace neoloom::model::testing {

inline DeviceTraits gpu(int major, int minor, bool deterministic = true) {
  DeviceTraits traits;
  traits.cuda = true;
  traits.capability_major = major;
  traits.capability_minor = minor;
  traits.deterministic = deterministic;
  return traits;
}

inline ModelSetup device_setup(ModelSetup setup, Dtype compute) {
  setup.device = gpu(9, 0);
  setup.compute_dtype = compute;
  setup.operators = ReferenceOperators::table();
  return setup;
}

inline Batch batch_for(const ModelSetup& setup) {
  Batch batch = random_batch({9, 3, 14}, setup.config.vocab_size);
  if (setup.head == Head::kCausalLm) return with_lm_labels(std::move(batch));
  if (setup.head == Head::kSingleLabel) {
    batch = with_class_labels(std::move(batch), setup.num_labels);
    batch.targets[1] = -1;  // a sample without a label
    return batch;
  }
  return with_random_flags(std::move(batch), setup.num_labels, 5);
}

/// Three heads, with adapters on all linears, on some, and without: every parameter trains.
inline std::vector<ModelSetup> every_setup() {
  std::vector<ModelSetup> setups;
  for (const Head head : {Head::kCausalLm, Head::kSingleLabel, Head::kMultiLabel}) {
    setups.push_back(tiny_setup(head));
    setups.push_back(tiny_setup(head));
    setups.back().lora->target_modules = {{"q_proj", "v_proj"}};
    setups.push_back(tiny_setup(head));
    setups.back().lora.reset();  // every parameter
  }
  return setups;
}

/// The same weights with packed copies, where this CPU uses them.
inline std::shared_ptr<Weights> with_packed_weights(const std::shared_ptr<Weights>& weights, Dtype compute) {
  if (!has_packed_gemm(compute)) return weights;
  auto packed = std::make_shared<Weights>(*weights);
  for (const FrozenMatrix& matrix : frozen_matrices(*packed)) {
    matrix.packed_weights->forward = pack_weights(matrix.values.t(), compute);
    if (compute == Dtype::kBFloat16) matrix.packed_weights->backward = pack_weights(matrix.values, compute);
  }
  return packed;
}

}  // namespace neoloom::model::testing
