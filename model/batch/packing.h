// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/batch/rows.h"
#include "model/gpt_neo_config.h"
#include "model/model.h"

namespace neoloom::model {

/// The rows of a micro-batch as tensors.
struct PackedBatch {
  at::Tensor ids;        // [N] int64
  at::Tensor positions;  // [N] int64
  /// [N] fp32: the largest NEFTune noise of each row, alpha / sqrt(tokens of its sample * h); undefined: no noise.
  at::Tensor noise_reach;
  RowSelection rows;       // every row
  RowSelection last_rows;  // keys at every row, queries at each sample's last token only
};

/// What the head's outputs are compared with.
struct Targets {
  at::Tensor rows;  // causal LM: [n] int64, packed rows whose next token has a label; else undefined: one row a sample
  at::Tensor values;   // [n] int64, or multi-label and regression [n, C] fp32; undefined: no loss wanted
  at::Tensor weights;  // [n] fp32, or [n, C] of single values: factors, 0 where there is no label; undefined: 1
  int64_t count = 0;   // labelled samples, or supervised tokens
};

/// All inputs of a micro-step beside parameters and weights.
struct MicroBatch {
  PackedBatch packed;
  Targets targets;
};

struct PackOptions {
  bool for_device = false;  // fills RowSelection::packed
  /// Rounds the numbers of rows and targets up, so that few shapes occur. The filling rows form a sample of their own,
  /// which may be empty for a causal LM. Filling targets have weight 0. Needs for_device.
  bool fixed_shapes = false;
};

/// Makes tensors of a batch, in host memory, which is pinned if `device` is a GPU.
/// Throws: Error(kData) naming the sample when a length, an id or a label is out of range.
MicroBatch pack(const Batch& batch, const ModelSetup& setup, const at::Device& device, PackOptions options = {});

/// Copies the tensors to `device` asynchronously, in place.
void move_to(MicroBatch& batch, const at::Device& device);

/// Copies the values of `batch` to `to`, which has the same shapes, asynchronously.
void copy_into(MicroBatch& to, const MicroBatch& batch);

/// Returns a text such as "1024 rows, ...", equal for micro-batches that differ only in tensor values. `by_length`: the
/// text also says whether all samples have one length, for kernels that depend on it.
std::string shape_of(const MicroBatch& batch, bool by_length);

/// Returns the rows of a micro-batch of fixed shape with `count` real rows. A classifier reads the filling sample's
/// last token, so its filling sample is never empty.
int64_t fixed_shape_rows(Head head, int64_t count);

/// Rounds `count` up to at least 128 and to one of at most eight sizes between two powers of two.
int64_t rounded_rows(int64_t count);

}  // namespace neoloom::model
