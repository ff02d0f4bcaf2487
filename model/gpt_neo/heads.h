// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/batch/packing.h"
#include "model/cpu/matmul.h"
#include "model/gpt_neo/network.h"
#include "model/model.h"

namespace neoloom::model {

/// What a head makes of the final block's output.
struct HeadResult {
  LossSum loss;
  at::Tensor logits;    // classification [B, C] fp32
  at::Tensor d_hidden;  // gradient of (loss sum * scale) for the final block's output, when gradients were wanted
};

/// Gradients of (loss sum * loss_scale) are computed, and the head's own written; else only the loss.
struct HeadWants {
  bool gradients = false;
  double loss_scale = 1.0;
  bool on_device = false;  // operators that every device has; else also the host's own loops
};

/// Single label: cross entropy summed over samples with a label (>= 0). Multi-label: binary cross entropy, mean over
/// labels, summed over samples. Shapes: hidden [B, h], the last tokens; the values of `targets` may be undefined.
HeadResult classify(const Network& network, Head head, const at::Tensor& hidden, const Targets& targets,
                    HeadWants wants);

/// Cross entropy of the supervised rows only, `chunk_rows` rows of logits at a time. Shapes: hidden [N, h].
HeadResult causal_lm(const Network& network, Products& products, const at::Tensor& hidden, const Targets& targets,
                     int64_t chunk_rows, HeadWants wants);

}  // namespace neoloom::model
