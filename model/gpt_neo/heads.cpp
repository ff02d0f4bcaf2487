// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/heads.h"

#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "model/gpt_neo/backend.h"
#include "runtime/core/error.h"

namespace neoloom::model {

namespace {

/// 256 rows of logits over GPT-2's vocabulary are 51 MB of fp32. GPUs need larger GEMMs.
constexpr int64_t kDefaultLogitsRows = 256;
constexpr int64_t kDefaultDeviceLogitsRows = 2048;

at::Tensor zero_loss(const at::Tensor& like) { return at::zeros({}, like.options().dtype(at::kDouble)); }

/// Multiplies losses and gradients of rows by their weights, 0 for rows that do not count. `gradient` may be any tensor
/// that is linear in the gradient of the logits.
void weigh(const at::Tensor& weights, at::Tensor& losses, at::Tensor& gradient) {
  if (!weights.defined() || weights.dim() > 1) return;
  losses.mul_(weights);
  if (gradient.defined()) gradient.mul_(weights.unsqueeze(1));
}

struct ClassifierOutput {
  Head head;
  const at::Tensor& logits;  // [B, C]
};

/// Weights of single values; undefined unless there are any.
at::Tensor value_weights(const Targets& targets) {
  return targets.weights.defined() && targets.weights.dim() > 1 ? targets.weights : at::Tensor();
}

/// Returns the losses [B] of a classification head. Shapes: logits [B, C]; d_logits [B, C], if wanted.
at::Tensor row_losses(const Backend& backend, const ClassifierOutput& output, const Targets& targets,
                      LossOptions options, at::Tensor& d_logits) {
  if (output.head == Head::kSingleLabel) {
    d_logits = output.logits.clone();
    return backend.cross_entropy(d_logits, targets.values, options);
  }
  const RowTargets rows{output.logits, targets.values, value_weights(targets)};
  return output.head == Head::kMultiLabel ? binary_cross_entropy_rows(rows, options, d_logits)
                                          : squared_error_rows(rows, options, d_logits);
}

at::Tensor count_right(const at::Tensor& right, const at::Tensor& weights) {
  return at::sum(weights.defined() ? right.mul(weights) : right, at::kLong);
}

}  // namespace

int64_t logits_chunk_rows(const ModelSetup& setup) {
  if (setup.logits_chunk_rows > 0) return setup.logits_chunk_rows;
  return setup.device.cuda ? kDefaultDeviceLogitsRows : kDefaultLogitsRows;
}

HeadResult classify(const Backend& backend, const Network& network, Head head, const at::Tensor& hidden,
                    const Targets& targets, LossOptions options) {
  Norm::Statistics statistics;
  const at::Tensor normed = network.ln_f.forward(hidden, &statistics);
  HeadResult result;
  result.logits = at::mm(normed, network.score.t());
  if (!targets.values.defined()) return result;
  result.loss.count = targets.count;
  at::Tensor d_logits;
  at::Tensor losses = row_losses(backend, {head, result.logits}, targets, options, d_logits);
  weigh(targets.weights, losses, d_logits);
  result.loss.loss = at::sum(losses, at::kDouble);
  if (!options.gradients) return result;
  at::Tensor score_grad = network.score_grad;
  at::mm_out(score_grad, d_logits.t(), normed);
  result.d_hidden = network.ln_f.backward(at::mm(d_logits, network.score), hidden, statistics);
  return result;
}

HeadResult causal_lm(Backend& backend, const Network& network, const at::Tensor& hidden, const Targets& targets,
                     int64_t chunk_rows, LossOptions options) {
  HeadResult result;
  const int64_t rows = targets.rows.size(0);
  result.loss.count = targets.count;
  result.loss.loss = zero_loss(hidden);
  if (options.counts_right) result.right = at::zeros({}, hidden.options().dtype(at::kLong));
  if (options.gradients) result.d_hidden = at::zeros_like(hidden);
  if (rows == 0) return result;
  const at::Tensor selected = at::index_select(hidden, 0, targets.rows);
  Norm::Statistics statistics;
  const at::Tensor normed = network.ln_f.forward(selected, &statistics);
  at::Tensor d_normed;
  if (options.gradients) d_normed = at::zeros_like(normed);
  const auto head = backend.lm_head_ops(network, std::min(chunk_rows, rows));
  for (int64_t begin = 0; begin < rows; begin += chunk_rows) {
    const int64_t count = std::min(chunk_rows, rows - begin);
    const auto part = [&](const at::Tensor& x) { return x.defined() ? x.narrow(0, begin, count) : x; };
    const LmHeadChunk chunk = {part(normed), part(targets.values), part(targets.weights)};
    LmHeadResult found = head->run(chunk, options);
    weigh(chunk.weights, found.losses, found.d_normed);
    result.loss.loss.add_(at::sum(found.losses, at::kDouble));
    if (options.counts_right) result.right.add_(count_right(found.right, chunk.weights));
    if (options.gradients) d_normed.narrow(0, begin, count).copy_(found.d_normed);
  }
  if (options.gradients) {
    // Filling targets all name the last row, which has no target of its own. Their order does not matter: all their
    // gradients are 0.
    result.d_hidden.index_copy_(0, targets.rows, network.ln_f.backward(d_normed, selected, statistics));
  }
  return result;
}

}  // namespace neoloom::model
