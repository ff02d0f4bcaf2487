// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/block.h"
#include "model/gpt_neo_config.h"
#include "model/model.h"

namespace neoloom::model {

/// A micro-batch without its padding.
struct PackedBatch {
  at::Tensor ids;        // [N] int64
  at::Tensor positions;  // [N] int64
  at::Tensor source;     // [N] int64: row of the padded batch, b * T + t
  RowPlan rows;          // every row
  RowPlan last_rows;     // keys at every row, queries at each sample's last token only
};

/// Drops the padding. Throws: Error(kData) naming the sample when a length or an id is out of range.
PackedBatch pack(const Batch& batch, const GptNeoConfig& config);

/// Rows whose next token has a label, and that label.
struct SupervisedRows {
  at::Tensor rows;     // [n] int64, packed rows
  at::Tensor targets;  // [n] int64
};
/// Shifted labels of a causal LM; -100 and whatever lies in the padding count as no label.
/// Throws: Error(kData) for a label outside the vocabulary.
SupervisedRows supervised_rows(const Batch& batch, const GptNeoConfig& config);

}  // namespace neoloom::model
