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

/// 256 rows of GPT-2's vocabulary are 51 MB of fp32; a device wants larger products.
constexpr int64_t kDefaultLogitsRows = 256;
constexpr int64_t kDefaultDeviceLogitsRows = 2048;

at::Tensor zero_loss(const at::Tensor& like) { return at::zeros({}, like.options().dtype(at::kDouble)); }

at::Tensor cross_entropy(at::Tensor& logits, const at::Tensor& targets, HeadWants wants) {
  return wants.on_device ? device_cross_entropy_rows(logits, targets, wants.loss_scale, wants.gradients)
                         : cross_entropy_rows(logits, targets, wants.loss_scale, wants.gradients);
}

/// Rows of weight 0 lose their loss and their gradient.
void weigh(const Targets& targets, int64_t begin, at::Tensor& losses, at::Tensor& d_logits) {
  if (!targets.weights.defined()) return;
  const at::Tensor weights = targets.weights.narrow(0, begin, losses.size(0));
  losses.mul_(weights);
  if (d_logits.defined()) d_logits.mul_(weights.unsqueeze(1));
}

}  // namespace

int64_t logits_chunk_rows(const ModelSetup& setup) {
  if (setup.logits_chunk_rows > 0) return setup.logits_chunk_rows;
  return setup.device.cuda ? kDefaultDeviceLogitsRows : kDefaultLogitsRows;
}

HeadResult classify(const Network& network, Head head, const at::Tensor& hidden, const Targets& targets,
                    HeadWants wants) {
  Norm::Statistics statistics;
  const at::Tensor normed = network.ln_f.forward(hidden, &statistics);
  HeadResult result;
  result.logits = at::mm(normed, network.score.t());
  if (!targets.values.defined()) return result;
  result.loss.count = targets.count;
  at::Tensor losses;
  at::Tensor d_logits;
  if (head == Head::kSingleLabel) {
    d_logits = result.logits.clone();
    losses = cross_entropy(d_logits, targets.values, wants);
  } else {
    losses = binary_cross_entropy_rows(result.logits, targets.values, wants.loss_scale,
                                       wants.gradients ? &d_logits : nullptr);
  }
  weigh(targets, 0, losses, d_logits);
  result.loss.loss = at::sum(losses, at::kDouble);
  if (!wants.gradients) return result;
  at::Tensor score_grad = network.score_grad;
  at::mm_out(score_grad, d_logits.t(), normed);
  result.d_hidden = network.ln_f.backward(at::mm(d_logits, network.score), hidden, statistics);
  return result;
}

HeadResult causal_lm(const Network& network, Products& products, const at::Tensor& hidden, const Targets& targets,
                     int64_t chunk_rows, HeadWants wants) {
  HeadResult result;
  const int64_t rows = targets.rows.size(0);
  result.loss.count = targets.count;
  result.loss.loss = zero_loss(hidden);
  if (wants.gradients) result.d_hidden = at::zeros_like(hidden);
  if (rows == 0) return result;
  const at::Tensor selected = at::index_select(hidden, 0, targets.rows);
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
    at::Tensor losses = cross_entropy(logits, targets.values.narrow(0, begin, count), wants);
    weigh(targets, begin, losses, logits);
    result.loss.loss.add_(at::sum(losses, at::kDouble));
    if (!wants.gradients) continue;
    d_normed.narrow(0, begin, count).copy_(products.input_gradient(logits, network.head));
    if (network.head_grad.defined()) network.head_grad.addmm_(logits.t(), chunk);
  }
  if (wants.gradients) {
    result.d_hidden.index_copy_(0, targets.rows, network.ln_f.backward(d_normed, selected, statistics));
  }
  return result;
}

}  // namespace neoloom::model
