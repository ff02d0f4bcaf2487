// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "data/token_store.h"
#include "runtime/core/task.h"

namespace neoloom::train {

/// A row in windows counts once: its logits are the mean of its windows' logits, and its loss, scores and prediction
/// are those of the mean. Sums go in the order of the windows, so they depend on no batch and no rank.

/// Returns the logits of a row. Shapes: windows [B, C] each, in any pieces, on any device; result [1, C] fp32,
/// contiguous in host memory.
at::Tensor mean_of_windows(const std::vector<at::Tensor>& windows);

/// Returns the logits of the rows from `first_row` on. Shapes: logits [windows of these rows, C], result [rows, C].
at::Tensor mean_by_row(const data::TokenStore& store, int64_t first_row, const at::Tensor& logits);

struct RowLoss {
  double loss = 0.0;
  bool counts = false;  // the row is labelled
};
/// The loss of a row, as the model's head computes it. Shapes: logits [C].
RowLoss loss_of_row(const data::TokenStore& store, int64_t row, core::Task task, const float* logits,
                    double label_smoothing);

}  // namespace neoloom::train
