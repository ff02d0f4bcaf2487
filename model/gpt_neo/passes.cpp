// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/passes.h"

#include <ATen/record_function.h>
#include <fmt/format.h>

namespace neoloom::model {

const RowSelection& Passes::rows_of(size_t layer) const {
  return classifies() && is_last(layer) ? batch.packed.last_rows : batch.packed.rows;
}

/// Returns the first block's input [N, h].
at::Tensor Passes::embed(at::Tensor& mask) const {
  at::Tensor x = network.embed(batch.packed.ids, batch.packed.positions);
  if (network.noise.active()) backend.add_noise(network.noise, x, batch.packed);
  return network.embed_dropout.active() ? backend.drop(network.embed_dropout, x, batch.packed.rows.key_rows, mask) : x;
}

at::Tensor Passes::forward(Saved* saved) const {
  const size_t lowest = saved != nullptr ? network.lowest_trainable_block() : network.blocks.size();
  if (saved != nullptr) saved->blocks.resize(network.blocks.size());
  at::Tensor mask;
  at::Tensor x = embed(mask);
  if (saved != nullptr && network.trains_embedding()) saved->embedding_mask = std::move(mask);
  for (size_t layer = 0; layer < network.blocks.size(); ++layer) {
    RECORD_USER_SCOPE(fmt::format("block {} forward", layer));
    BlockSaved* const kept = saved != nullptr && layer >= lowest ? &saved->blocks[layer] : nullptr;
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

void Passes::backward(Saved& saved, at::Tensor d_hidden, const std::function<void(size_t layer)>& ready) const {
  const size_t lowest = network.lowest_trainable_block();
  for (size_t layer = network.blocks.size(); layer-- > lowest;) {
    RECORD_USER_SCOPE(fmt::format("block {} backward", layer));
    const Block& block = network.blocks[layer];
    const bool needs_dx = layer > lowest || network.trains_embedding();
    BlockSaved& kept = saved.blocks[layer];
    if (checkpointed(layer)) block.recompute(backend, rows_of(layer), kept);
    d_hidden = block.backward(backend, d_hidden, rows_of(layer), kept, needs_dx);
    kept = {};
    if (ready) ready(layer);
  }
  if (!network.trains_embedding()) return;
  if (network.embed_dropout.active()) {
    d_hidden = backend.drop(network.embed_dropout, d_hidden, batch.packed.rows.key_rows, saved.embedding_mask);
  }
  if (network.tokens.present()) network.tokens.add_gradient(batch.packed.ids, d_hidden);
  at::Tensor wte_grad = network.wte_grad;  // holds the tied head's part already
  if (wte_grad.defined()) wte_grad.index_add_(0, batch.packed.ids, d_hidden);
  at::Tensor wpe_grad = network.wpe_grad;
  if (wpe_grad.defined()) wpe_grad.index_add_(0, batch.packed.positions, d_hidden);
}

}  // namespace neoloom::model
