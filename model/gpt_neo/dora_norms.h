// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/gpt_neo/network.h"

namespace neoloom::model {

class Backend;

/// Returns row_norms(W + s B A) of every DoRA adapter, in the order of blocks and LinearSite. Costs one GEMM of A's
/// rows for each.
std::vector<at::Tensor> dora_norms(const Network& network, Backend& backend);

/// Sets norm and gain of every DoRA adapter.
void set_dora_norms(Network& network, const std::vector<at::Tensor>& norms);

/// Sets the norms, and computes them only when the parameters change: once an update on CPUs. A hash tells it, so no
/// caller has to. On GPUs, where the host must not wait for values and CUDA graphs replay the same work, each call
/// computes them.
class DoraNorms {
 public:
  explicit DoraNorms(bool keeps) : keeps_(keeps) {}
  void set(Network& network, Backend& backend, const at::Tensor& params);

 private:
  bool keeps_;
  uint64_t hash_ = 0;
  std::vector<at::Tensor> norms_;
};

}  // namespace neoloom::model
