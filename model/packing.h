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

/// Drops the padding; with `for_device` also fills RowPlan::packed. The host does not wait for the device.
/// Throws: Error(kData) naming the sample when a length or an id (of a batch on the host) is out of range.
PackedBatch pack(const Batch& batch, const GptNeoConfig& config, bool for_device = false);

/// Labels where the host can read them: contiguous int64, of the shape of batch.labels.
/// Throws: Error(kInternal) when a batch on a device comes without its host copy.
at::Tensor host_labels(const Batch& batch);

/// Rows whose next token has a label, and that label.
struct SupervisedRows {
  at::Tensor rows;     // [n] int64, packed rows
  at::Tensor targets;  // [n] int64
};
/// From the host copy of the labels. Shifted labels of a causal LM; -100 and whatever lies in the padding count as no
/// label. Throws: Error(kData) for a label outside the vocabulary.
SupervisedRows supervised_rows(const Batch& batch, const GptNeoConfig& config);

}  // namespace neoloom::model
