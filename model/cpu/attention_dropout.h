// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/batch/rows.h"

namespace neoloom::model {

/// Inverted dropout of attention probabilities. A factor, 0 or 1 / (1 - probability), is a pure function of (seed,
/// epoch, layer, head, sample, query token, key token): it does not depend on batch, padding or rank, and backward
/// draws it again.
struct AttentionDropout {
  double probability = 0.0;  // of dropping, in [0, 1)
  uint64_t seed = 0;
  int64_t epoch = 0;
  int64_t layer = 0;
  int64_t num_heads = 1;

  bool active() const { return probability > 0.0; }

  /// Writes the factors of one query in one head for the key tokens [begin, end) to factors[0, end - begin).
  void draw(RowKey query, int64_t head, int64_t begin, int64_t end, float* factors) const;

  /// Returns the factors of a chunk of queries, from token `first_query` of the sample on, by LibTorch's generator of
  /// `scores`' device: other factors than draw()'s, and a function of the first query of a chunk instead of each query.
  /// Shapes: scores [heads, queries, keys], which gives shape and type.
  at::Tensor draw_on_cuda(const at::Tensor& scores, int64_t sample, int64_t first_query) const;
};

}  // namespace neoloom::model
