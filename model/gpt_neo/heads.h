// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/batch/packing.h"
#include "model/cpu/cross_entropy.h"
#include "model/gpt_neo/network.h"
#include "model/model.h"

namespace neoloom::model {

class Backend;

/// Result of a head for the last block's output.
struct HeadResult {
  LossSum loss;
  at::Tensor logits;    // classification [B, C] fp32
  at::Tensor d_hidden;  // gradient of (loss sum * scale) by the last block's output; undefined unless wanted
  at::Tensor right;     // causal LM: [] int64, targets that have the largest logit; undefined unless wanted
};

/// Some supervised rows of a causal LM.
struct LmHeadChunk {
  at::Tensor normed;   // [n, h] fp32
  at::Tensor targets;  // [n] int64
  at::Tensor weights;  // [n] fp32: 0 for rows that do not count; undefined: all do
};

/// Losses of a chunk's rows, and the gradient of its `normed`. None is multiplied by `weights`.
struct LmHeadResult {
  at::Tensor losses;    // [n]
  at::Tensor d_normed;  // [n, h], undefined unless wanted
  at::Tensor right;     // [n] bool: the target has the largest logit; undefined unless wanted
};

/// The language model's head of one micro-batch, chunk by chunk; see Backend::lm_head_ops.
class LmHeadOps {
 public:
  virtual ~LmHeadOps() = default;
  virtual LmHeadResult run(const LmHeadChunk& chunk, LossOptions options) = 0;
};

/// Single label: cross entropy summed over samples with a label (>= 0). Multi-label: binary cross entropy, mean over
/// labels, summed over samples. Regression: squared error, likewise. With `gradients`, writes those of the head, too.
/// Shapes: hidden [B, h], the last tokens; the values of `targets` may be undefined.
HeadResult classify(const Backend& backend, const Network& network, Head head, const at::Tensor& hidden,
                    const Targets& targets, LossOptions options);

/// Cross entropy of the supervised rows only, `chunk_rows` rows of logits at a time. Shapes: hidden [N, h].
HeadResult causal_lm(Backend& backend, const Network& network, const at::Tensor& hidden, const Targets& targets,
                     int64_t chunk_rows, LossOptions options);

}  // namespace neoloom::model
