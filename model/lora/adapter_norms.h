// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "model/model.h"

namespace neoloom::model {

/// Frobenius norms of adapters: one for each adapted linear, by layer, then in the order of LinearSite.
struct AdapterNorms {
  std::vector<double> a, b;
  std::vector<double> update;  // of s B A, or of s (B A - B0 A0) where the model subtracts; DoRA's gain is left out
};

/// Computes them in fp64 on the device of `params` [layout().total_elements]; waits for it once. The product itself is
/// not formed. Empty in full-parameter training.
AdapterNorms adapter_norms(const Model& model, const at::Tensor& params);

}  // namespace neoloom::model
