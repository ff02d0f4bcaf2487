// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/block.h"

namespace neoloom::model {

BlockSaved BlockSaved::inputs() const {
  BlockSaved result;
  result.x = x;
  result.adapters = adapters;
  return result;
}

at::Tensor Block::forward(Products& products, const at::Tensor& x, const RowPlan& rows, BlockSaved* saved) const {
  BlockSaved local;
  BlockSaved& kept = saved != nullptr ? *saved : local;
  return products.device() != nullptr ? device_forward(products, x, rows, kept) : host_forward(products, x, rows, kept);
}

void Block::fill(Products& products, const RowPlan& rows, BlockSaved& saved) const {
  return products.device() != nullptr ? device_fill(products, rows, saved) : host_fill(products, rows, saved);
}

at::Tensor Block::backward(Products& products, const at::Tensor& dy, const RowPlan& rows, const BlockSaved& saved,
                           BlockWants wants) const {
  return products.device() != nullptr ? device_backward(products, dy, rows, saved, wants)
                                      : host_backward(products, dy, rows, saved, wants);
}

at::Tensor Block::decode(Products& products, const at::Tensor& x, KeyValueCache& cache, int64_t position) const {
  const std::vector<RowKey> no_keys;  // nothing is dropped while decoding
  const at::Tensor normed = ln_1.forward(x, nullptr);
  const int64_t count = x.size(0);
  const int64_t seen = position + count;
  cache.k.narrow(0, position, count).copy_(k_proj.forward(products, normed, no_keys));
  cache.v.narrow(0, position, count).copy_(v_proj.forward(products, normed, no_keys));
  const at::Tensor q = q_proj.forward(products, normed, no_keys);
  const at::Tensor attended =
      attention.forward(q, cache.k.narrow(0, 0, seen), cache.v.narrow(0, 0, seen), {{0, count, 0, seen}});
  const at::Tensor middle = out_proj.forward(products, attended, no_keys, nullptr, x);
  const at::Tensor activated =
      c_fc.forward_activated(products, ln_2.forward(middle, nullptr), no_keys, GeluKeeps::kInput).values;
  return c_proj.forward(products, activated, no_keys, nullptr, middle);
}

}  // namespace neoloom::model
