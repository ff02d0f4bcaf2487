// SPDX-License-Identifier: Apache-2.0
// A block on the host: everything that follows a product is done to its tiles while they are in the cache, and what
// only goes from product to product has the type that they read ("narrow" below; fp32 where that is what they read).
#include <ATen/ops/zeros_like.h>

#include "model/cpu/aligned_rows.h"
#include "model/cpu/gelu.h"
#include "model/gpt_neo/block.h"
#include "model/lora/target_modules.h"

namespace neoloom::model {

class Block::OnHost {
 public:
  OnHost(const Block& block, Products& products, const RowPlan& rows)
      : block_(block),
        products_(products),
        rows_(rows),
        queries_(rows.query_keys()),
        narrow_(products.input_type(block.c_fc.weight)) {}

  at::Tensor forward(const at::Tensor& x, BlockSaved& kept) const;
  /// Everything but x. Returns c_proj's input.
  at::Tensor fill(BlockSaved& kept) const;
  at::Tensor backward(at::Tensor dy, const BlockSaved& saved, BlockWants wants) const;

 private:
  void project_inputs(BlockSaved& kept) const;
  void mlp_backward(at::Tensor& dy, const BlockSaved& saved, bool wants_dx) const;
  at::Tensor attention_backward(at::Tensor& dy, const BlockSaved& saved, bool wants_dx) const;
  at::Tensor inputs_backward(const AttentionGradients& d, const BlockSaved& saved, bool wants_dx) const;

  /// Where the adapter of a linear keeps what backward wants.
  static at::Tensor* reduced(BlockSaved& saved, LinearSite site) {
    return &saved.adapters[static_cast<size_t>(site)].reduced;
  }
  static const at::Tensor& reduced(const BlockSaved& saved, LinearSite site) {
    return saved.adapters[static_cast<size_t>(site)].reduced;
  }

  const Block& block_;
  Products& products_;
  const RowPlan& rows_;
  const std::vector<RowKey>& queries_;
  at::ScalarType narrow_;
};

void Block::OnHost::project_inputs(BlockSaved& kept) const {
  const at::Tensor normed = block_.ln_1.host_forward(kept.x, &kept.ln_1, narrow_);
  const auto project = [&](const Linear& linear, LinearSite site, const at::Tensor& input,
                           const std::vector<RowKey>& keys) {
    return linear.forward(products_, input, keys, reduced(kept, site), {}, narrow_);
  };
  kept.k = project(block_.k_proj, LinearSite::kKProj, normed, rows_.key_rows);
  kept.v = project(block_.v_proj, LinearSite::kVProj, normed, rows_.key_rows);
  kept.q = project(block_.q_proj, LinearSite::kQProj, select_rows(normed, rows_), queries_);
}

at::Tensor Block::OnHost::forward(const at::Tensor& x, BlockSaved& kept) const {
  kept.x = x;
  const at::Tensor activated = fill(kept);
  return block_.c_proj.forward(products_, activated, queries_, reduced(kept, LinearSite::kCProj), kept.middle);
}

at::Tensor Block::OnHost::fill(BlockSaved& kept) const {
  project_inputs(kept);
  kept.attended = block_.attention.forward(kept.q, kept.k, kept.v, rows_.segments);
  kept.middle = block_.out_proj.forward(products_, kept.attended, queries_, reduced(kept, LinearSite::kOutProj),
                                        select_rows(kept.x, rows_));
  const at::Tensor normed = block_.ln_2.host_forward(kept.middle, &kept.ln_2, narrow_);
  const GeluKeeps keeps = block_.c_proj.trains() ? GeluKeeps::kInput : GeluKeeps::kSlope;
  Products::Activated mlp =
      block_.c_fc.forward_activated(products_, normed, queries_, keeps, reduced(kept, LinearSite::kCFc));
  kept.activation = std::move(mlp.saved);
  return mlp.values;
}

at::Tensor Block::OnHost::backward(at::Tensor dy, const BlockSaved& saved, BlockWants wants) const {
  const bool below_mlp = wants.dx || block_.attention_trains();
  if (below_mlp || block_.mlp_trains()) mlp_backward(dy, saved, below_mlp);
  return below_mlp ? attention_backward(dy, saved, wants.dx) : at::Tensor();
}

/// Adds to dy, where wanted, what comes back through the MLP: dy becomes the gradient of `middle`.
void Block::OnHost::mlp_backward(at::Tensor& dy, const BlockSaved& saved, bool wants_dx) const {
  const Linear& c_fc = block_.c_fc;
  const Linear& c_proj = block_.c_proj;
  const bool below_projection = wants_dx || c_fc.trains() || block_.ln_2.weight_grad.defined();
  at::Tensor d_pre;
  {
    at::Tensor activated;
    if (c_proj.trains()) activated = rows_of_panels(gelu_new(saved.activation.values), c_proj.weight.plain.size(1));
    d_pre = c_proj.backward(products_, {rows_as(dy, narrow_), activated, reduced(saved, LinearSite::kCProj)}, queries_,
                            below_projection, narrow_, saved.activation);
  }
  if (!below_projection) return;
  at::Tensor normed;
  if (c_fc.trains()) normed = block_.ln_2.host_forward(saved.middle, nullptr, narrow_);
  const bool below_fc = wants_dx || block_.ln_2.weight_grad.defined();
  const at::Tensor d_normed =
      c_fc.backward(products_, {d_pre, normed, reduced(saved, LinearSite::kCFc)}, queries_, below_fc);
  if (below_fc) block_.ln_2.host_add_gradient(d_normed, saved.middle, saved.ln_2, dy);
}

/// From the gradient of `middle` to that of the block's input [N, h]; undefined unless wanted. dy may become it.
at::Tensor Block::OnHost::attention_backward(at::Tensor& dy, const BlockSaved& saved, bool wants_dx) const {
  const at::Tensor d_attended =
      block_.out_proj.backward(products_, {rows_as(dy, narrow_), saved.attended, reduced(saved, LinearSite::kOutProj)},
                               queries_, wants_dx || block_.inputs_train(), narrow_);
  if (!d_attended.defined()) return {};
  const at::Tensor d_normed = inputs_backward(
      block_.attention.backward(d_attended, saved.q, saved.k, saved.v, rows_.segments), saved, wants_dx);
  if (!d_normed.defined()) return {};
  at::Tensor dx = rows_.all_queries() ? dy : at::zeros_like(saved.x);
  if (!rows_.all_queries()) add_rows(dx, dy, rows_);
  block_.ln_1.host_add_gradient(d_normed, saved.x, saved.ln_1, dx);
  return wants_dx ? dx : at::Tensor();
}

/// From the gradients of q, k and v to that of ln_1's output [N, h]; undefined where nobody wants it.
at::Tensor Block::OnHost::inputs_backward(const AttentionGradients& d, const BlockSaved& saved, bool wants_dx) const {
  const bool wanted = wants_dx || block_.ln_1.weight_grad.defined();
  at::Tensor normed;
  at::Tensor query_normed;
  if (block_.inputs_train()) {
    normed = block_.ln_1.host_forward(saved.x, nullptr, narrow_);
    query_normed = select_rows(normed, rows_);
  }
  const Linear::Upstream query = {d.dq, query_normed, reduced(saved, LinearSite::kQProj)};
  at::Tensor d_normed =
      block_.k_proj.backward(products_, {d.dk, normed, reduced(saved, LinearSite::kKProj)}, rows_.key_rows, wanted);
  at::Tensor* const into = wanted ? &d_normed : nullptr;
  block_.v_proj.backward_into(products_, {d.dv, normed, reduced(saved, LinearSite::kVProj)}, rows_.key_rows, into);
  if (rows_.all_queries()) {
    block_.q_proj.backward_into(products_, query, queries_, into);
    return d_normed;
  }
  const at::Tensor d_query = block_.q_proj.backward(products_, query, queries_, wanted);
  if (wanted) add_rows(d_normed, d_query, rows_);
  return d_normed;
}

at::Tensor Block::host_forward(Products& products, const at::Tensor& x, const RowPlan& rows, BlockSaved& kept) const {
  return OnHost(*this, products, rows).forward(x, kept);
}

void Block::host_fill(Products& products, const RowPlan& rows, BlockSaved& saved) const {
  OnHost(*this, products, rows).fill(saved);
}

at::Tensor Block::host_backward(Products& products, at::Tensor dy, const RowPlan& rows, const BlockSaved& saved,
                                BlockWants wants) const {
  return OnHost(*this, products, rows).backward(std::move(dy), saved, wants);
}

}  // namespace neoloom::model
