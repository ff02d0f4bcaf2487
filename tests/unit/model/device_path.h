// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <utility>

#include "tests/unit/model/setups.h"

namespace neoloom::model::testing {

/// Expects the loss and the gradients of the GPU's operators, run on the CPU, to be those of the CPU's kernels.
inline void expect_device_equals_host(const ModelSetup& setup) {
  const auto weights = random_weights(setup.config, at::kFloat);
  const auto host = Model::create(setup, with_packed_weights(weights, Dtype::kFloat32));
  const at::Tensor params = random_params(*host);
  const Batch batch = batch_for(setup);
  const Trial expected = train_once(*host, batch, params);
  for (const auto& [compute, tolerance] : {std::pair{Dtype::kFloat32, 1e-5}, {Dtype::kBFloat16, 6e-2}}) {
    const auto device = Model::create(device_setup(setup, compute), weights);
    const Trial found = train_once(*device, batch, params);
    EXPECT_NEAR(found.loss, expected.loss, tolerance * expected.loss);
    EXPECT_LT(distance(found.grads, expected.grads), tolerance);
  }
}

}  // namespace neoloom::model::testing
