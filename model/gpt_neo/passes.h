// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>
#include <vector>

#include "model/batch/packing.h"
#include "model/gpt_neo/backend.h"
#include "model/gpt_neo/heads.h"
#include "model/gpt_neo/network.h"
#include "model/model.h"

namespace neoloom::model {

/// Forward and backward pass of one micro-batch through a network, on any backend. Holds references only.
struct Passes {
  const ModelSetup& setup;
  const Network& network;
  Backend& backend;
  const MicroBatch& batch;

  /// What forward keeps for backward.
  struct Saved {
    at::Tensor embedding_mask;       // [N, h] bool: what embed_dropout kept; GPUs only
    std::vector<BlockSaved> blocks;  // for checkpointed blocks BlockSaved::inputs
  };

  /// Runs embedding and blocks. Returns [n, h]: all rows, or a classifier's last tokens. `saved` null: no backward
  /// follows.
  at::Tensor forward(Saved* saved) const;

  /// Runs the head on forward's result. The result is empty for a causal LM without targets.
  HeadResult head(const at::Tensor& hidden, LossOptions options) const;

  /// Writes the gradients of blocks and embedding. `d_hidden` is the gradient of forward's result [n, h] (overwritten).
  /// Releases `saved` block by block. Calls `ready` (may be empty) for each block whose gradients are final.
  void backward(Saved& saved, at::Tensor d_hidden, const std::function<void(size_t layer)>& ready) const;

  const RowSelection& rows_of(size_t layer) const;

 private:
  bool classifies() const { return setup.head != Head::kCausalLm; }
  at::Tensor embed(at::Tensor& mask) const;
  bool is_last(size_t layer) const { return layer + 1 == network.blocks.size(); }
  /// Whether backward recomputes this block's activations. Not for the last block, whose backward follows its forward.
  bool checkpointed(size_t layer) const { return setup.gradient_checkpointing && !is_last(layer); }
};

}  // namespace neoloom::model
