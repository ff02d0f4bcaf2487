// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/block.h"

#include "model/gpt_neo/backend.h"

namespace neoloom::model {

namespace {
using enum LinearSite;
}

BlockSaved BlockSaved::inputs() const {
  BlockSaved result;
  result.x = x;
  result.adapters = adapters;
  return result;
}

at::Tensor Block::forward(Backend& backend, const at::Tensor& x, const RowSelection& rows, BlockSaved* saved) const {
  const auto ops = backend.block_ops(*this, rows);
  BlockSaved unsaved;
  BlockSaved& s = saved != nullptr ? *saved : unsaved;
  s.x = x;                                                              // [N, h]
  at::Tensor activated = up_to_activation(*ops, rows, s);               // [n, ff]
  if (!activated.defined()) activated = ops->gelu(s.activation);        // [n, ff]
  return ops->linear_add(kCProj, activated, /*residual=*/s.middle, s);  // [n, h]
}

void Block::recompute(Backend& backend, const RowSelection& rows, BlockSaved& saved) const {
  up_to_activation(*backend.block_ops(*this, rows), rows, saved);
}

/// Fills `s` from s.x. Returns gelu_new's output if the backend computes it together with its input, else undefined.
at::Tensor Block::up_to_activation(BlockOps& ops, const RowSelection& rows, BlockSaved& s) const {
  {
    const at::Tensor normed = ops.layer_norm(ln_1, s.x, &s.ln_1);  // [N, h]
    if (ops.keeps_normed() && inputs_train()) s.normed = normed;
    s.k = ops.project(kKProj, normed, s);                     // [N, h]
    s.v = ops.project(kVProj, normed, s);                     // [N, h]
    s.q = ops.project(kQProj, select_rows(normed, rows), s);  // [n, h]
  }
  s.attended = ops.attention(s);                                               // [n, h]
  s.middle = ops.linear_add(kOutProj, s.attended, select_rows(s.x, rows), s);  // [n, h]
  return ops.linear_gelu(ops.layer_norm(ln_2, s.middle, &s.ln_2), s);          // [n, ff]
}

at::Tensor Block::backward(Backend& backend, const at::Tensor& dy, const RowSelection& rows, const BlockSaved& saved,
                           bool needs_dx) const {
  const auto ops = backend.block_ops(*this, rows);
  const bool below_mlp = needs_dx || attention_trains();
  at::Tensor d_middle = dy;  // [n, h]
  if (below_mlp || mlp_trains()) d_middle = mlp_backward(*ops, dy, saved, below_mlp);
  return below_mlp ? attention_backward(*ops, d_middle, saved, needs_dx) : at::Tensor();
}

/// Returns the gradient of `middle` from that of y; dy itself where nothing below the MLP needs one.
at::Tensor Block::mlp_backward(BlockOps& ops, const at::Tensor& dy, const BlockSaved& s, bool needs_d_middle) const {
  const bool needs_d_normed = needs_d_middle || ln_2.trains();
  const at::Tensor d_pre = ops.gelu_linear_grad(dy, s, needs_d_normed || trains(kCFc));  // [n, ff]
  if (!d_pre.defined()) return dy;
  at::Tensor normed;  // [n, h]
  if (trains_matrix(kCFc)) normed = ops.layer_norm(ln_2, s.middle, nullptr);
  const at::Tensor d_normed = ops.linear_grad(kCFc, d_pre, normed, s, needs_d_normed, GradDtype::kFp32);  // [n, h]
  if (!needs_d_normed) return dy;
  return ops.residual_norm_grad(ln_2, d_normed, s.middle, s.ln_2, dy, ResidualRows::kSame);
}

/// Returns the gradient of x from that of `middle`; undefined unless needed.
at::Tensor Block::attention_backward(BlockOps& ops, const at::Tensor& d_middle, const BlockSaved& s,
                                     bool needs_dx) const {
  const at::Tensor d_attended =
      ops.linear_grad(kOutProj, d_middle, s.attended, s, needs_dx || inputs_train(), GradDtype::kMatmul);  // [n, h]
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
