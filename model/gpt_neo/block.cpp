// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/block.h"

#include <ATen/ops/zeros_like.h>

#include "model/gpt_neo/backend.h"

namespace neoloom::model {

namespace {
using enum LinearSite;
}

BlockSaved BlockSaved::inputs() const {
  BlockSaved result;
  result.x = x;
  result.adapters = adapters;
  result.attention_mask = attention_mask;
  result.mlp_mask = mlp_mask;
  return result;
}

at::Tensor Block::forward(Backend& backend, const at::Tensor& x, const RowSelection& rows, BlockSaved* saved) const {
  const auto ops = backend.block_ops(*this, rows);
  const Pass pass{backend, *ops, rows};
  BlockSaved unsaved;
  BlockSaved& s = saved != nullptr ? *saved : unsaved;
  s.x = x;                                                               // [N, h]
  at::Tensor activated = up_to_activation(pass, s);                      // [n, ff]
  if (!activated.defined()) activated = ops->gelu(s.activation);         // [n, ff]
  return add_output(pass, kCProj, activated, /*residual=*/s.middle, s);  // [n, h]
}

void Block::recompute(Backend& backend, const RowSelection& rows, BlockSaved& saved) const {
  const auto ops = backend.block_ops(*this, rows);
  up_to_activation({backend, *ops, rows}, saved);
}

/// Fills `s` from s.x. Returns gelu_new's output if the backend computes it together with its input, else undefined.
at::Tensor Block::up_to_activation(const Pass& pass, BlockSaved& s) const {
  BlockOps& ops = pass.ops;
  {
    const at::Tensor normed = ops.layer_norm(ln_1, s.x, &s.ln_1);  // [N, h]
    if (ops.keeps_normed() && inputs_train()) s.normed = normed;
    s.k = ops.project(kKProj, normed, s);                          // [N, h]
    s.v = ops.project(kVProj, normed, s);                          // [N, h]
    s.q = ops.project(kQProj, select_rows(normed, pass.rows), s);  // [n, h]
  }
  s.attended = ops.attention(s);                                                      // [n, h]
  s.middle = add_output(pass, kOutProj, s.attended, select_rows(s.x, pass.rows), s);  // [n, h]
  return ops.linear_gelu(ops.layer_norm(ln_2, s.middle, &s.ln_2), s);                 // [n, ff]
}

/// residual + drop(W x + b + adapter): [n, h].
at::Tensor Block::add_output(const Pass& pass, LinearSite site, const at::Tensor& x, const at::Tensor& residual,
                             BlockSaved& s) const {
  const DropoutMask& dropout = (*this)[site].output_dropout;
  if (!dropout.active()) return pass.ops.linear_add(site, x, residual, s);
  const at::Tensor y = pass.ops.linear_add(site, x, at::zeros_like(residual), s);
  at::Tensor& mask = site == kOutProj ? s.attention_mask : s.mlp_mask;
  return pass.backend.drop(dropout, y, pass.rows.query_keys(), mask).add_(residual);
}

/// Returns the gradient of W x + b + adapter from that of its sum with the residual; dy itself without dropout.
at::Tensor Block::output_grad(const Pass& pass, LinearSite site, const at::Tensor& dy, at::Tensor mask) const {
  const DropoutMask& dropout = (*this)[site].output_dropout;
  return dropout.active() ? pass.backend.drop(dropout, dy, pass.rows.query_keys(), mask) : dy;
}

at::Tensor Block::backward(Backend& backend, const at::Tensor& dy, const RowSelection& rows, const BlockSaved& saved,
                           bool needs_dx) const {
  const auto ops = backend.block_ops(*this, rows);
  const Pass pass{backend, *ops, rows};
  const bool below_mlp = needs_dx || attention_trains();
  at::Tensor d_middle = dy;  // [n, h]
  if (below_mlp || mlp_trains()) d_middle = mlp_backward(pass, dy, saved, below_mlp);
  return below_mlp ? attention_backward(pass, d_middle, saved, needs_dx) : at::Tensor();
}

/// Returns the gradient of `middle` from that of y; dy itself where nothing below the MLP needs one.
at::Tensor Block::mlp_backward(const Pass& pass, const at::Tensor& dy, const BlockSaved& s, bool needs_d_middle) const {
  BlockOps& ops = pass.ops;
  const bool needs_d_normed = needs_d_middle || ln_2.trains();
  const at::Tensor d_output = output_grad(pass, kCProj, dy, s.mlp_mask);                       // [n, h]
  const at::Tensor d_pre = ops.gelu_linear_grad(d_output, s, needs_d_normed || trains(kCFc));  // [n, ff]
  if (!d_pre.defined()) return dy;
  at::Tensor normed;  // [n, h]
  if (trains_matrix(kCFc)) normed = ops.layer_norm(ln_2, s.middle, nullptr);
  const at::Tensor d_normed = ops.linear_grad(kCFc, d_pre, normed, s, needs_d_normed, GradDtype::kFp32);  // [n, h]
  if (!needs_d_normed) return dy;
  return ops.residual_norm_grad(ln_2, d_normed, s.middle, s.ln_2, dy, ResidualRows::kSame);
}

/// Returns the gradient of x from that of `middle`; undefined unless needed.
at::Tensor Block::attention_backward(const Pass& pass, const at::Tensor& d_middle, const BlockSaved& s,
                                     bool needs_dx) const {
  BlockOps& ops = pass.ops;
  const at::Tensor d_output = output_grad(pass, kOutProj, d_middle, s.attention_mask);  // [n, h]
  const at::Tensor d_attended =
      ops.linear_grad(kOutProj, d_output, s.attended, s, needs_dx || inputs_train(), GradDtype::kMatmul);  // [n, h]
  if (!d_attended.defined()) return {};
  const at::Tensor d_normed = inputs_backward(ops, d_attended, s, needs_dx || ln_1.trains());  // [N, h]
  if (!d_normed.defined()) return {};
  const at::Tensor dx = ops.residual_norm_grad(ln_1, d_normed, s.x, s.ln_1, d_middle, ResidualRows::kQueries);
  return needs_dx ? dx : at::Tensor();
}

/// Returns the gradient of ln_1's output from that of out_proj's input; undefined unless needed.
at::Tensor Block::inputs_backward(BlockOps& ops, const at::Tensor& d_attended, const BlockSaved& s,
                                  bool needs_d_normed) const {
  const AttentionGradients d = ops.attention_grad(d_attended, s);  // [n, h], [N, h], [N, h]
  at::Tensor normed = s.normed;                                    // [N, h]
  if (!normed.defined() && inputs_train()) normed = ops.layer_norm(ln_1, s.x, nullptr);
  return ops.qkv_grad(d, normed, s, needs_d_normed);
}

}  // namespace neoloom::model
