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

/// One micro-batch's way through a network, over any backend. Holds references only.
struct Passes {
  const ModelSetup& setup;
  const Network& network;
  Backend& backend;
  const MicroBatch& batch;

  /// Embedding and blocks: [n, h], of all rows, or of a classifier's last tokens. `saved` (null: there is no backward)
  /// receives what each block keeps, of checkpointed ones BlockSaved::inputs.
  at::Tensor forward(std::vector<BlockSaved>* saved) const;

  /// Of forward's result; nothing where a causal LM has no targets.
  HeadResult head(const at::Tensor& hidden, HeadWants wants) const;

  /// Writes the gradients of blocks and embedding, given that of forward's result [n, h] (overwritten). `saved` is
  /// emptied on the way. `ready` (may be empty) is told each block whose gradients are final.
  void backward(std::vector<BlockSaved>& saved, at::Tensor d_hidden,
                const std::function<void(size_t layer)>& ready) const;

  const RowSelection& rows_of(size_t layer) const;

 private:
  bool classifies() const { return setup.head != Head::kCausalLm; }
  bool is_last(size_t layer) const { return layer + 1 == network.blocks.size(); }
  /// Whether backward computes anew what this block's forward would have to keep. The last block's is used at once.
  bool checkpointed(size_t layer) const { return setup.gradient_checkpointing && !is_last(layer); }
};

}  // namespace neoloom::model
