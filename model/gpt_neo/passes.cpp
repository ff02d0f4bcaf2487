// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/passes.h"

#include <ATen/record_function.h>
#include <fmt/format.h>

namespace neoloom::model {

const RowSelection& Passes::rows_of(size_t layer) const {
  return classifies() && is_last(layer) ? batch.packed.last_rows : batch.packed.rows;
}

at::Tensor Passes::forward(std::vector<BlockSaved>* saved) const {
  const size_t lowest = saved != nullptr ? network.lowest_trainable_block() : network.blocks.size();
  if (saved != nullptr) saved->resize(network.blocks.size());
  at::Tensor x = network.embed(batch.packed.ids, batch.packed.positions);
  for (size_t layer = 0; layer < network.blocks.size(); ++layer) {
    RECORD_USER_SCOPE(fmt::format("block {} forward", layer));
    BlockSaved* const kept = saved != nullptr && layer >= lowest ? &(*saved)[layer] : nullptr;
    x = network.blocks[layer].forward(backend, x, rows_of(layer), kept);
    if (kept != nullptr && checkpointed(layer)) *kept = kept->inputs();
  }
  return x;
}

HeadResult Passes::head(const at::Tensor& hidden, LossOptions options) const {
  RECORD_USER_SCOPE("head");
  options.label_smoothing = setup.label_smoothing;
  if (classifies()) return classify(backend, network, setup.head, hidden, batch.targets, options);
  if (!batch.targets.values.defined()) return {};
  return causal_lm(backend, network, hidden, batch.targets, logits_chunk_rows(setup), options);
}

void Passes::backward(std::vector<BlockSaved>& saved, at::Tensor d_hidden,
                      const std::function<void(size_t layer)>& ready) const {
  const size_t lowest = network.lowest_trainable_block();
  for (size_t layer = network.blocks.size(); layer-- > lowest;) {
    RECORD_USER_SCOPE(fmt::format("block {} backward", layer));
    const Block& block = network.blocks[layer];
    const bool needs_dx = layer > lowest || network.trains_embedding();
    if (checkpointed(layer)) block.recompute(backend, rows_of(layer), saved[layer]);
    d_hidden = block.backward(backend, d_hidden, rows_of(layer), saved[layer], needs_dx);
    saved[layer] = {};
    if (ready) ready(layer);
  }
  if (!network.trains_embedding()) return;
  at::Tensor wte_grad = network.wte_grad;  // holds the tied head's part already
  wte_grad.index_add_(0, batch.packed.ids, d_hidden);
  at::Tensor wpe_grad = network.wpe_grad;
  if (wpe_grad.defined()) wpe_grad.index_add_(0, batch.packed.positions, d_hidden);
}

}  // namespace neoloom::model
