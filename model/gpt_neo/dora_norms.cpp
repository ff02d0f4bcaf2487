// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/dora_norms.h"

#include "model/gpt_neo/backend.h"
#include "runtime/core/hash.h"

namespace neoloom::model {

std::vector<at::Tensor> dora_norms(const Network& network, Backend& backend) {
  std::vector<at::Tensor> norms;
  for (const Block& block : network.blocks) {
    for (const Linear& linear : block.linears) {
      const LoraBranch& lora = linear.lora;
      if (!lora.dora.present()) continue;
      const at::Tensor projected = backend.multiply(lora.a, linear.weight);
      norms.push_back(row_norms({lora.dora.weight_squares, projected, lora.a, lora.b, lora.scaling}));
    }
  }
  return norms;
}

void set_dora_norms(Network& network, const std::vector<at::Tensor>& norms) {
  auto next = norms.begin();
  for (Block& block : network.blocks) {
    for (Linear& linear : block.linears) {
      if (linear.lora.dora.present()) linear.lora.dora.set_norm(*next++);
    }
  }
}

void DoraNorms::set(Network& network, Backend& backend, const at::Tensor& params) {
  if (!keeps_) {
    set_dora_norms(network, dora_norms(network, backend));
    return;
  }
  const uint64_t hash = core::xxh3(params.const_data_ptr<float>(), params.nbytes());
  if (norms_.empty() || hash != hash_) {
    norms_ = dora_norms(network, backend);
    hash_ = hash;
  }
  set_dora_norms(network, norms_);
}

}  // namespace neoloom::model
