// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/batch/rows.h"

namespace neoloom::model {

/// Sites of random numbers behind those of a block's six linears (LinearSite).
inline constexpr int64_t kAttentionOutputSite = 6;
inline constexpr int64_t kMlpOutputSite = 7;
/// Sites of the embeddings, whose layer is the number of blocks.
inline constexpr int64_t kEmbeddingSite = 0;
inline constexpr int64_t kNoiseSite = 1;

/// Inverted dropout whose masks are a pure function of (seed, epoch, sample, token, channel, layer, site): whether an
/// element is dropped does not depend on batch, padding or rank.
struct DropoutMask {
  double probability = 0.0;  // of dropping, in [0, 1)
  uint64_t seed = 0;
  int64_t epoch = 0;
  int64_t layer = 0;
  int64_t site = 0;  // which linear of the block, or one of those above

  bool active() const { return probability > 0.0; }
  /// x * mask / (1 - probability), a new tensor. Shapes: x [n, c] fp32; keys [n].
  at::Tensor apply(const at::Tensor& x, const std::vector<RowKey>& keys) const;
};

/// NEFTune: uniform noise on the token embeddings in training, drawn like the masks above.
struct EmbeddingNoise {
  double alpha = 0.0;  // 0: none
  uint64_t seed = 0;
  int64_t epoch = 0;
  int64_t layer = 0;  // the number of blocks

  bool active() const { return alpha > 0.0; }
  /// Adds noise in [-reach, reach] to each row. Shapes: x [n, c] fp32, contiguous; reach [n] fp32, which pack() makes
  /// of alpha (PackedBatch::noise_reach); keys [n].
  void add_to(at::Tensor& x, const at::Tensor& reach, const std::vector<RowKey>& keys) const;
};

}  // namespace neoloom::model
