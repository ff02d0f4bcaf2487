// SPDX-License-Identifier: Apache-2.0
#include "model/heads.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "model/loss.h"
#include "runtime/core/error.h"

namespace neoloom::model {

namespace {

at::Tensor zero_loss(const at::Tensor& like) { return at::zeros({}, like.options().dtype(at::kDouble)); }

at::Tensor cross_entropy(at::Tensor& logits, const at::Tensor& targets, HeadWants wants) {
  return wants.on_device ? device_cross_entropy_rows(logits, targets, wants.loss_scale, wants.gradients)
                         : cross_entropy_rows(logits, targets, wants.loss_scale, wants.gradients);
}

/// Counts the labels (0 and above), on the host. Throws: Error(kData) for one that has no class.
int64_t count_labels(const Batch& batch, int64_t classes) {
  const at::Tensor labels = host_labels(batch);
  const int64_t* const values = labels.const_data_ptr<int64_t>();
  int64_t count = 0;
  for (int64_t row = 0; row < labels.numel(); ++row) {
    core::require(values[row] < classes, core::ErrorKind::kData, "label {} with only {} classes", values[row], classes);
    if (values[row] >= 0) ++count;
  }
  return count;
}

/// Rows without a label (-1) lose their loss and their gradient.
at::Tensor single_label_losses(const at::Tensor& logits, const Batch& batch, HeadWants wants, int64_t& count,
                               at::Tensor& d_logits) {
  const at::Tensor& labels = batch.labels;
  count = count_labels(batch, logits.size(1));
  d_logits = logits.clone();
  at::Tensor losses = cross_entropy(d_logits, labels.clamp_min(0), wants);
  if (count != labels.size(0)) {
    const at::Tensor unlabelled = labels.lt(0);
    losses.masked_fill_(unlabelled, 0.0);
    d_logits.masked_fill_(unlabelled.unsqueeze(1), 0.0);
  }
  return losses;
}

void check_labels(Head head, const at::Tensor& labels, const at::Tensor& logits) {
  if (head == Head::kMultiLabel) {
    core::require(labels.sizes() == logits.sizes() && labels.scalar_type() == at::kFloat, core::ErrorKind::kInternal,
                  "multi-label labels: expected fp32 of shape [{}, {}]", logits.size(0), logits.size(1));
    return;
  }
  core::require(labels.dim() == 1 && labels.size(0) == logits.size(0) && labels.scalar_type() == at::kLong,
                core::ErrorKind::kInternal, "labels: expected int64 of shape [{}]", logits.size(0));
}

}  // namespace

HeadResult classify(const Network& network, Head head, const at::Tensor& hidden, const Batch& batch, HeadWants wants) {
  const at::Tensor& labels = batch.labels;
  Norm::Statistics statistics;
  const at::Tensor normed = network.ln_f.forward(hidden, &statistics);
  HeadResult result;
  result.logits = at::mm(normed, network.score.t());
  if (!labels.defined()) return result;
  check_labels(head, labels, result.logits);
  at::Tensor losses;
  at::Tensor d_logits;
  if (head == Head::kSingleLabel) {
    losses = single_label_losses(result.logits, batch, wants, result.loss.count, d_logits);
  } else {
    losses = binary_cross_entropy_rows(result.logits, labels, wants.loss_scale, wants.gradients ? &d_logits : nullptr);
    result.loss.count = labels.size(0);
  }
  result.loss.loss = at::sum(losses, at::kDouble);
  if (!wants.gradients) return result;
  at::Tensor score_grad = network.score_grad;
  at::mm_out(score_grad, d_logits.t(), normed);
  result.d_hidden = network.ln_f.backward(at::mm(d_logits, network.score), hidden, statistics);
  return result;
}

HeadResult causal_lm(const Network& network, Products& products, const at::Tensor& hidden,
                     const SupervisedRows& supervised, int64_t chunk_rows, HeadWants wants) {
  HeadResult result;
  const int64_t rows = supervised.rows.size(0);
  result.loss.count = rows;
  result.loss.loss = zero_loss(hidden);
  if (wants.gradients) result.d_hidden = at::zeros_like(hidden);
  if (rows == 0) return result;
  const at::Tensor selected = at::index_select(hidden, 0, supervised.rows);
  Norm::Statistics statistics;
  const at::Tensor normed = network.ln_f.forward(selected, &statistics);
  at::Tensor d_normed;
  if (wants.gradients) d_normed = at::zeros_like(normed);
  at::Tensor buffer;  // the host's products write to it; on a device each chunk gets memory of LibTorch's pool
  if (!wants.on_device) buffer = at::empty({std::min(chunk_rows, rows), network.head.plain.size(0)}, hidden.options());
  for (int64_t begin = 0; begin < rows; begin += chunk_rows) {
    const int64_t count = std::min(chunk_rows, rows - begin);
    const at::Tensor chunk = normed.narrow(0, begin, count);
    at::Tensor logits = buffer.defined() ? buffer.narrow(0, 0, count) : at::Tensor();
    products.forward_into(logits, chunk, network.head, {});
    const at::Tensor losses = cross_entropy(logits, supervised.targets.narrow(0, begin, count), wants);
    result.loss.loss.add_(at::sum(losses, at::kDouble));
    if (!wants.gradients) continue;
    d_normed.narrow(0, begin, count).copy_(products.input_gradient(logits, network.head));
    if (network.head_grad.defined()) network.head_grad.addmm_(logits.t(), chunk);
  }
  if (wants.gradients) {
    result.d_hidden.index_copy_(0, supervised.rows, network.ln_f.backward(d_normed, selected, statistics));
  }
  return result;
}

}  // namespace neoloom::model
