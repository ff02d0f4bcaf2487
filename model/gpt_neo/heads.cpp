// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/heads.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>

#include "model/cpu/cross_entropy.h"
#include "runtime/core/error.h"

namespace neoloom::model {

namespace {

/// 256 rows of GPT-2's vocabulary are 51 MB of fp32; a device wants larger products.
constexpr int64_t kDefaultLogitsRows = 256;
constexpr int64_t kDefaultDeviceLogitsRows = 2048;

at::Tensor zero_loss(const at::Tensor& like) { return at::zeros({}, like.options().dtype(at::kDouble)); }

/// Rows of weight 0 lose their loss and their gradient, which is linear in the gradient of their logits.
void weigh(const at::Tensor& weights, at::Tensor& losses, at::Tensor& gradient) {
  if (!weights.defined()) return;
  losses.mul_(weights);
  if (gradient.defined()) gradient.mul_(weights.unsqueeze(1));
}

/// Some supervised rows of a causal LM.
struct Chunk {
  at::Tensor normed;   // [n, h] fp32
  at::Tensor targets;  // [n] int64
  at::Tensor weights;  // [n] fp32: 0 for rows that do not count; undefined: all do
};

/// Losses of its rows, and the gradient of the head's input, neither weighed.
struct ChunkResult {
  at::Tensor losses;    // [n]
  at::Tensor d_normed;  // [n, h], undefined unless wanted
};

/// `buffer` [at least n, V] fp32 is overwritten.
ChunkResult host_chunk(const Network& network, Products& products, const Chunk& chunk, const at::Tensor& buffer,
                       HeadWants wants) {
  at::Tensor logits = buffer.narrow(0, 0, chunk.targets.size(0));
  products.forward_into(logits, chunk.normed, network.head, {});
  ChunkResult result;
  result.losses = cross_entropy_rows(logits, chunk.targets, wants.loss_scale, wants.gradients);
  if (!wants.gradients) return result;
  result.d_normed = products.input_gradient(logits, network.head);
  if (network.head_grad.defined()) network.head_grad.addmm_(logits.t(), chunk.normed);
  return result;
}

/// `head` [at least V, h]: the network's, in the type of products.
ChunkResult device_chunk(const Network& network, const Products& products, const at::Tensor& head, const Chunk& chunk,
                         HeadWants wants) {
  const int64_t vocabulary = network.head.plain.size(0);
  at::Tensor logits = products.device_product(products.narrowed(chunk.normed), head.t(), /*wide=*/true);
  const int64_t filling = head.size(0) - vocabulary;
  if (filling > 0) logits.narrow(1, vocabulary, filling).fill_(-std::numeric_limits<float>::infinity());
  ChunkResult result;
  result.losses =
      device_cross_entropy_rows(logits, chunk.targets, wants.loss_scale, wants.gradients, head.scalar_type());
  if (!wants.gradients) return result;
  result.d_normed = products.device_product(logits, head, /*wide=*/true);
  if (network.head_grad.defined()) {
    const at::Tensor counted = chunk.weights.defined() ? chunk.normed.mul(chunk.weights.unsqueeze(1)) : chunk.normed;
    products.add_device_product(network.head_grad, logits.t(), products.narrowed(counted));
  }
  return result;
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
    losses = wants.on_device ? device_cross_entropy_rows(d_logits, targets.values, wants.loss_scale, wants.gradients)
                             : cross_entropy_rows(d_logits, targets.values, wants.loss_scale, wants.gradients);
  } else {
    losses = binary_cross_entropy_rows(result.logits, targets.values, wants.loss_scale,
                                       wants.gradients ? &d_logits : nullptr);
  }
  weigh(targets.weights, losses, d_logits);
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
  at::Tensor head;
  at::Tensor buffer;  // on a device each chunk gets memory of LibTorch's pool
  if (wants.on_device) {
    head = products.narrowed(network.aligned_head.defined() ? network.aligned_head : network.head.plain);
  } else {
    buffer = at::empty({std::min(chunk_rows, rows), network.head.plain.size(0)}, hidden.options());
  }
  for (int64_t begin = 0; begin < rows; begin += chunk_rows) {
    const int64_t count = std::min(chunk_rows, rows - begin);
    const auto part = [&](const at::Tensor& x) { return x.defined() ? x.narrow(0, begin, count) : x; };
    const Chunk chunk = {part(normed), part(targets.values), part(targets.weights)};
    ChunkResult found = wants.on_device ? device_chunk(network, products, head, chunk, wants)
                                        : host_chunk(network, products, chunk, buffer, wants);
    weigh(chunk.weights, found.losses, found.d_normed);
    result.loss.loss.add_(at::sum(found.losses, at::kDouble));
    if (wants.gradients) d_normed.narrow(0, begin, count).copy_(found.d_normed);
  }
  if (wants.gradients) {
    // Rows that fill the shape all name the last one, which is no target's: their gradients are 0, as its is.
    result.d_hidden.index_copy_(0, targets.rows, network.ln_f.backward(d_normed, selected, statistics));
  }
  return result;
}

}  // namespace neoloom::model
