// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/batch/rows.h"

namespace neoloom::model {

/// Inverted dropout whose masks are a pure function of (seed, epoch, sample, token, channel, layer, site): whether an
/// element is dropped does not depend on batch, padding or rank.
struct DropoutMask {
  double probability = 0.0;  // of dropping, in [0, 1)
  uint64_t seed = 0;
  int64_t epoch = 0;
  int64_t layer = 0;
  int64_t site = 0;  // which linear of the block

  bool active() const { return probability > 0.0; }
  /// x * mask / (1 - probability), a new tensor. Shapes: x [n, c] fp32; keys [n].
  at::Tensor apply(const at::Tensor& x, const std::vector<RowKey>& keys) const;
};

}  // namespace neoloom::model
