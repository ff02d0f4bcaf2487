// SPDX-License-Identifier: Apache-2.0
#include "model/block.h"

#include <ATen/ops/index_select.h>

#include "model/activation.h"

namespace neoloom::model {

at::Tensor select_rows(const at::Tensor& x, const RowPlan& rows) {
  return rows.all_queries() ? x : at::index_select(x, 0, rows.query_index);
}

void add_rows(at::Tensor& all, const at::Tensor& selected, const RowPlan& rows) {
  if (rows.all_queries()) {
    all.add_(selected);
  } else {
    all.index_add_(0, rows.query_index, selected);
  }
}

at::Tensor Block::forward(Products& products, const at::Tensor& x, const RowPlan& rows, BlockSaved* saved) const {
  if (products.device() != nullptr) return device_forward(products, x, rows, saved);
  BlockSaved local;
  BlockSaved& kept = saved != nullptr ? *saved : local;
  kept.x = x;
  {
    const at::Tensor normed = ln_1.forward(x, &kept.ln_1);
    const at::Tensor input = products.as_input(normed, k_proj.weight);
    kept.k = k_proj.forward(products, normed, rows.key_rows, input);
    kept.v = v_proj.forward(products, normed, rows.key_rows, input);
    kept.q = q_proj.forward(products, select_rows(normed, rows), rows.query_keys(), select_rows(input, rows));
  }
  kept.attended = attention.forward(kept.q, kept.k, kept.v, rows.segments);
  kept.middle = out_proj.forward(products, kept.attended, rows.query_keys()).add_(select_rows(x, rows));
  kept.pre_activation = c_fc.forward(products, ln_2.forward(kept.middle, &kept.ln_2), rows.query_keys());
  const at::Tensor activated = gelu_new(kept.pre_activation, c_proj.input_type(products));
  return c_proj.forward(products, activated, rows.query_keys()).add_(kept.middle);
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
  const at::Tensor middle = out_proj.forward(products, attended, no_keys).add_(x);
  const at::Tensor pre_activation = c_fc.forward(products, ln_2.forward(middle, nullptr), no_keys);
  return c_proj.forward(products, gelu_new(pre_activation), no_keys).add_(middle);
}

at::Tensor Block::backward(Products& products, const at::Tensor& dy, const RowPlan& rows, const BlockSaved& saved,
                           BlockWants wants) const {
  const bool below_mlp = wants.dx || attention_trains();
  if (below_mlp || mlp_trains()) {
    const at::Tensor d_middle = mlp_backward(products, dy, rows, saved, below_mlp);
    if (below_mlp) dy.add_(d_middle);
  }
  if (!below_mlp) return {};
  at::Tensor dx = attention_backward(products, dy, rows, saved, wants.dx);
  if (!wants.dx) return {};
  add_rows(dx, dy, rows);
  return dx;
}

at::Tensor Block::mlp_backward(Products& products, const at::Tensor& dy, const RowPlan& rows, const BlockSaved& saved,
                               bool wants_dx) const {
  if (products.device() != nullptr) return device_mlp_backward(products, dy, rows, saved, wants_dx);
  const bool below_projection = wants_dx || c_fc.trains() || ln_2.weight_grad.defined();
  at::Tensor d_activated;
  {
    at::Tensor activated;
    if (c_proj.trains()) activated = gelu_new(saved.pre_activation);
    d_activated = c_proj.backward(products, dy, activated, rows.query_keys(), below_projection);
  }
  if (!below_projection) return {};
  const at::Tensor d_pre = gelu_new_backward(d_activated, saved.pre_activation, c_fc.input_type(products));
  at::Tensor normed;
  if (c_fc.trains()) normed = ln_2.forward(saved.middle, nullptr);
  const bool below_fc = wants_dx || ln_2.weight_grad.defined();
  const at::Tensor d_normed = c_fc.backward(products, d_pre, normed, rows.query_keys(), below_fc);
  return below_fc ? ln_2.backward(d_normed, saved.middle, saved.ln_2) : at::Tensor();
}

at::Tensor Block::attention_backward(Products& products, const at::Tensor& dy, const RowPlan& rows,
                                     const BlockSaved& saved, bool wants_dx) const {
  if (products.device() != nullptr) return device_attention_backward(products, dy, rows, saved, wants_dx);
  const bool below_projection = wants_dx || inputs_train();
  const at::Tensor d_attended = out_proj.backward(products, dy, saved.attended, rows.query_keys(), below_projection);
  if (!below_projection) return {};
  const AttentionGradients d = attention.backward(d_attended, saved.q, saved.k, saved.v, rows.segments);
  const at::Tensor normed = inputs_train() ? ln_1.forward(saved.x, nullptr) : at::Tensor();
  const bool below_inputs = wants_dx || ln_1.weight_grad.defined();
  at::Tensor d_normed = k_proj.backward(products, d.dk, normed, rows.key_rows, below_inputs);
  v_proj.backward_into(products, d.dv, normed, rows.key_rows, below_inputs ? &d_normed : nullptr);
  const at::Tensor query_input = normed.defined() ? select_rows(normed, rows) : normed;
  if (rows.all_queries()) {
    q_proj.backward_into(products, d.dq, query_input, rows.query_keys(), below_inputs ? &d_normed : nullptr);
  } else {
    const at::Tensor d_query = q_proj.backward(products, d.dq, query_input, rows.query_keys(), below_inputs);
    if (below_inputs) add_rows(d_normed, d_query, rows);
  }
  return below_inputs ? ln_1.backward(d_normed, saved.x, saved.ln_1) : at::Tensor();
}

}  // namespace neoloom::model
