// SPDX-License-Identifier: Apache-2.0
// A block along the device path: the formulas of host_block.cpp in few operators. What only feeds products or attention
// has the compute dtype ("16" below; fp32 computes in fp32), everything else is fp32.
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/sum.h>

#include <vector>

#include "model/gpt_neo/block.h"
#include "model/lora/target_modules.h"

namespace neoloom::model {

namespace {

constexpr const char* kApproximation = "tanh";

bool follows(const at::Tensor& next, const at::Tensor& previous) {
  return next.is_alias_of(previous) && next.is_contiguous() && previous.is_contiguous() &&
         next.storage_offset() == previous.storage_offset() + previous.numel();
}

/// Matrices of equal widths below each other: a view where they lie so in memory, which is how to_device() and the flat
/// buffer of full-parameter training lay out k, v and q.
at::Tensor below_each_other(const std::vector<at::Tensor>& matrices) {
  int64_t rows = matrices.front().size(0);
  bool adjacent = true;
  for (size_t i = 1; i < matrices.size(); ++i) {
    rows += matrices[i].size(0);
    adjacent = adjacent && follows(matrices[i], matrices[i - 1]);
  }
  if (!adjacent) return at::cat(matrices, 0);
  const int64_t width = matrices.front().size(1);
  return matrices.front().as_strided({rows, width}, {width, 1}, matrices.front().storage_offset());
}

at::Tensor widened(const at::Tensor& x) { return x.to(at::kFloat); }

}  // namespace

class Block::OnDevice {
 public:
  OnDevice(const Block& block, Products& products, const RowPlan& rows)
      : block_(block),
        products_(products),
        rows_(rows),
        attention_(block.attention_kernel, block.attention, *products.device()) {}

  at::Tensor forward(const at::Tensor& x, BlockSaved& kept) const;
  void fill(BlockSaved& kept) const;
  at::Tensor backward(const at::Tensor& dy, const BlockSaved& saved, BlockWants wants) const;

 private:
  at::Tensor mlp_backward(const at::Tensor& dy, const BlockSaved& saved, bool wants_dx) const;
  at::Tensor attention_backward(const at::Tensor& dy, const BlockSaved& saved, bool wants_dx) const;
  AttentionRows attention_rows() const { return {rows_.segments, rows_.packed}; }
  at::Tensor weight(const Linear& linear) const { return products_.narrowed(linear.weight.plain); }
  at::Tensor input_weights() const;
  at::Tensor input_projection(LinearSite site, const at::Tensor& x, BlockSaved& kept) const;
  at::Tensor linear(LinearSite site, const at::Tensor& x, const at::Tensor& residual, BlockSaved& kept) const;
  at::Tensor pre_activation(const at::Tensor& normed, BlockSaved& kept) const;
  at::Tensor linear_backward(LinearSite site, const at::Tensor& dy, const at::Tensor& x, const BlockSaved& saved,
                             bool wants_dx) const;
  void parameter_gradients(LinearSite site, const at::Tensor& dy, const at::Tensor& x, const BlockSaved& saved,
                           at::Tensor* dx) const;
  at::Tensor inputs_backward(const AttentionGradients& d, const BlockSaved& saved, bool wants_dx) const;

  const Linear& at_site(LinearSite site) const;

  const Block& block_;
  Products& products_;
  const RowPlan& rows_;
  DeviceAttention attention_;
};

const Linear& Block::OnDevice::at_site(LinearSite site) const {
  const Linear* const linears[] = {&block_.q_proj,   &block_.k_proj, &block_.v_proj,
                                   &block_.out_proj, &block_.c_fc,   &block_.c_proj};
  return *linears[static_cast<size_t>(site)];
}

/// 16 [3h, h], or [2h, h] where only some rows have queries: k, v, and q.
at::Tensor Block::OnDevice::input_weights() const {
  std::vector<at::Tensor> matrices = {block_.k_proj.weight.plain, block_.v_proj.weight.plain};
  if (rows_.all_queries()) matrices.push_back(block_.q_proj.weight.plain);
  return products_.narrowed(below_each_other(matrices));
}

/// k, v or q as attention wants it: W x + adapter. Shapes: x [n, h] 16 -> [n, h].
at::Tensor Block::OnDevice::input_projection(LinearSite site, const at::Tensor& x, BlockSaved& kept) const {
  const Linear& linear = at_site(site);
  const at::Tensor columns = weight(linear).t();
  at::Tensor y;
  if (linear.lora.present()) {
    y = adapter_output_on_device(products_, linear.lora, x, kept.adapters[static_cast<size_t>(site)]);
    y.addmm_(x, columns, /*beta=*/linear.lora.scaling);
  } else {
    y = products_.device_product(x, columns, /*wide=*/false);
  }
  return attention_.wants_16bit() ? y : widened(y);
}

/// residual + W x + b + adapter in fp32. x: fp32 or 16; residual: undefined is 0.
at::Tensor Block::OnDevice::linear(LinearSite site, const at::Tensor& x, const at::Tensor& residual,
                                   BlockSaved& kept) const {
  const Linear& linear = at_site(site);
  const at::Tensor narrow = products_.narrowed(x);
  at::Tensor y;
  if (residual.defined()) {
    y = linear.bias.defined() ? residual.add(linear.bias) : residual.clone();
    products_.add_device_product(y, narrow, weight(linear).t());
  } else {
    y = products_.device_product(narrow, weight(linear).t(), /*wide=*/true);
    if (linear.bias.defined()) y.add_(linear.bias);
  }
  if (linear.lora.present()) {
    add_adapter_on_device(products_, linear.lora, y, narrow, kept.adapters[static_cast<size_t>(site)]);
  }
  return y;
}

/// [n, ff]: fp32 where c_fc trains, because its gradient makes parameter gradients; else 16.
at::Tensor Block::OnDevice::pre_activation(const at::Tensor& normed, BlockSaved& kept) const {
  if (block_.c_fc.trains()) return linear(LinearSite::kCFc, normed, /*residual=*/{}, kept);
  return at::addmm(products_.narrowed(block_.c_fc.bias), products_.narrowed(normed), weight(block_.c_fc).t());
}

at::Tensor Block::OnDevice::forward(const at::Tensor& x, BlockSaved& kept) const {
  kept.x = x;
  fill(kept);
  return linear(LinearSite::kCProj, at::gelu(kept.activation.values, kApproximation), kept.middle, kept);
}

void Block::OnDevice::fill(BlockSaved& kept) const {
  const at::Tensor normed = products_.narrowed(block_.ln_1.forward(kept.x, &kept.ln_1));
  if (block_.inputs_train()) kept.normed = normed;
  kept.k = input_projection(LinearSite::kKProj, normed, kept);
  kept.v = input_projection(LinearSite::kVProj, normed, kept);
  kept.q = input_projection(LinearSite::kQProj, select_rows(normed, rows_), kept);
  kept.attended = attention_.forward(kept.q, kept.k, kept.v, attention_rows(), kept.attention);
  kept.middle = linear(LinearSite::kOutProj, kept.attended, select_rows(kept.x, rows_), kept);
  kept.activation.values = pre_activation(block_.ln_2.forward(kept.middle, &kept.ln_2), kept);
}

/// Gradients of the adapter and the weight; the adapter's part of the input's gradient is added to `dx`.
/// dy: 16; x: fp32 or 16.
void Block::OnDevice::parameter_gradients(LinearSite site, const at::Tensor& dy, const at::Tensor& x,
                                          const BlockSaved& saved, at::Tensor* dx) const {
  const Linear& linear = at_site(site);
  if (linear.lora.present()) {
    adapter_backward_on_device(products_, linear.lora, dy, products_.narrowed(x),
                               saved.adapters[static_cast<size_t>(site)], dx);
  }
  if (linear.weight_grad.defined()) {
    products_.add_device_product(linear.weight_grad, dy.t(), products_.narrowed(x), /*beta=*/0);
  }
}

/// Parameter gradients, and the gradient of x, fp32 or 16: undefined unless wanted. x: undefined where nothing trains.
at::Tensor Block::OnDevice::linear_backward(LinearSite site, const at::Tensor& dy, const at::Tensor& x,
                                            const BlockSaved& saved, bool wants_dx) const {
  const Linear& linear = at_site(site);
  at::Tensor dx;
  // Without an adapter nothing is added to it, and what follows reads the compute dtype: elsewhere it is fp32.
  const bool wide = linear.lora.present() || site == LinearSite::kCFc || site == LinearSite::kQProj;
  const at::Tensor narrow_dy = products_.narrowed(dy);
  if (wants_dx) dx = products_.device_product(narrow_dy, weight(linear), wide);
  parameter_gradients(site, narrow_dy, x, saved, wants_dx ? &dx : nullptr);
  if (linear.bias_grad.defined()) linear.bias_grad.copy_(at::sum(dy, {0}, /*keepdim=*/false, at::kFloat));
  return dx;
}

at::Tensor Block::OnDevice::mlp_backward(const at::Tensor& dy, const BlockSaved& saved, bool wants_dx) const {
  const bool below_projection = wants_dx || block_.c_fc.trains() || block_.ln_2.weight_grad.defined();
  const at::Tensor& pre = saved.activation.values;
  const at::Tensor activated = block_.c_proj.trains() ? at::gelu(pre, kApproximation) : at::Tensor();
  const at::Tensor d_activated = linear_backward(LinearSite::kCProj, dy, activated, saved, below_projection);
  if (!below_projection) return {};
  const at::Tensor d_pre = at::gelu_backward(d_activated.to(pre.scalar_type()), pre, kApproximation);
  const at::Tensor normed = block_.c_fc.trains() ? block_.ln_2.forward(saved.middle, nullptr) : at::Tensor();
  const bool below_fc = wants_dx || block_.ln_2.weight_grad.defined();
  const at::Tensor d_normed = linear_backward(LinearSite::kCFc, d_pre, normed, saved, below_fc);
  return below_fc ? block_.ln_2.backward(d_normed, saved.middle, saved.ln_2) : at::Tensor();
}

at::Tensor Block::OnDevice::attention_backward(const at::Tensor& dy, const BlockSaved& saved, bool wants_dx) const {
  const bool below_projection = wants_dx || block_.inputs_train();
  const at::Tensor d_attended = linear_backward(LinearSite::kOutProj, dy, saved.attended, saved, below_projection);
  if (!below_projection) return {};
  const at::Tensor grad = d_attended.to(saved.q.scalar_type());
  return inputs_backward(
      attention_.backward(grad, saved.q, saved.k, saved.v, saved.attended, attention_rows(), saved.attention), saved,
      wants_dx);
}

/// From the gradients of q, k and v to that of the block's input [N, h].
at::Tensor Block::OnDevice::inputs_backward(const AttentionGradients& d, const BlockSaved& saved, bool wants_dx) const {
  const at::Tensor& normed = saved.normed;
  const bool below_inputs = wants_dx || block_.ln_1.weight_grad.defined();
  at::Tensor d_normed;
  if (below_inputs) {
    const at::Tensor together = rows_.all_queries() ? at::cat({d.dk, d.dv, d.dq}, 1) : at::cat({d.dk, d.dv}, 1);
    d_normed = products_.device_product(products_.narrowed(together), input_weights(), /*wide=*/true);
  }
  at::Tensor* const into = below_inputs ? &d_normed : nullptr;
  const auto narrow = [this](const at::Tensor& x) { return products_.narrowed(x); };
  if (block_.k_proj.trains()) parameter_gradients(LinearSite::kKProj, narrow(d.dk), normed, saved, into);
  if (block_.v_proj.trains()) parameter_gradients(LinearSite::kVProj, narrow(d.dv), normed, saved, into);
  if (rows_.all_queries()) {
    if (block_.q_proj.trains()) parameter_gradients(LinearSite::kQProj, narrow(d.dq), normed, saved, into);
  } else {
    const at::Tensor query_input = normed.defined() ? select_rows(normed, rows_) : normed;
    const at::Tensor d_query = linear_backward(LinearSite::kQProj, d.dq, query_input, saved, below_inputs);
    if (below_inputs) add_rows(d_normed, d_query, rows_);
  }
  return below_inputs ? block_.ln_1.backward(d_normed, saved.x, saved.ln_1) : at::Tensor();
}

at::Tensor Block::OnDevice::backward(const at::Tensor& dy, const BlockSaved& saved, BlockWants wants) const {
  const bool below_mlp = wants.dx || block_.attention_trains();
  if (below_mlp || block_.mlp_trains()) {
    const at::Tensor d_middle = mlp_backward(dy, saved, below_mlp);
    if (below_mlp) dy.add_(d_middle);
  }
  if (!below_mlp) return {};
  at::Tensor dx = attention_backward(dy, saved, wants.dx);
  if (!wants.dx) return {};
  add_rows(dx, dy, rows_);
  return dx;
}

at::Tensor Block::device_forward(Products& products, const at::Tensor& x, const RowPlan& rows, BlockSaved& kept) const {
  return OnDevice(*this, products, rows).forward(x, kept);
}

void Block::device_fill(Products& products, const RowPlan& rows, BlockSaved& saved) const {
  OnDevice(*this, products, rows).fill(saved);
}

at::Tensor Block::device_backward(Products& products, const at::Tensor& dy, const RowPlan& rows,
                                  const BlockSaved& saved, BlockWants wants) const {
  return OnDevice(*this, products, rows).backward(dy, saved, wants);
}

}  // namespace neoloom::model
