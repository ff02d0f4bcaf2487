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
  at::Tensor ids;          // [N] int64
  at::Tensor positions;    // [N] int64
  RowSelection rows;       // every row
  RowSelection last_rows;  // keys at every row, queries at each sample's last token only
};

/// What the head's outputs are compared with.
struct Targets {
  at::Tensor rows;  // causal LM: [n] int64, packed rows whose next token has a label; else undefined: one row a sample
  at::Tensor values;   // [n] int64, or multi-label [n, C] fp32; undefined: no loss wanted
  at::Tensor weights;  // [n] fp32: 1, or 0 where there is no label; undefined: all are labelled
  int64_t count = 0;   // labelled samples, or supervised tokens
};

/// Everything that a micro-step reads beside parameters and weights.
struct MicroBatch {
  PackedBatch packed;
  Targets targets;
};

struct PackOptions {
  bool for_device = false;  // fills RowSelection::packed
  /// Numbers of rows and targets are rounded up, so that few shapes occur: the rows after the real ones form a sample
  /// of their own, which may be empty for a causal LM; targets after the real ones weigh 0. Needs for_device.
  bool fixed_shapes = false;
};

/// Makes tensors of a batch. Everything stays in host memory, page-locked where it will travel to `device`.
/// Throws: Error(kData) naming the sample when a length, an id or a label is out of range.
MicroBatch pack(const Batch& batch, const ModelSetup& setup, const at::Device& device, PackOptions options = {});

/// Moves what lies in host memory to `device`; the host does not wait.
void move_to(MicroBatch& batch, const at::Device& device);

/// Copies the values of `batch` over those of `place`, which has the same shapes; the host does not wait.
void copy_into(MicroBatch& place, const MicroBatch& batch);

/// Equal for micro-batches that differ in tensor values alone: "1024 rows, ...". `by_length`: also in whether all
/// samples have one length, where kernels are chosen by that.
std::string shape_of(const MicroBatch& batch, bool by_length);

/// Rows of a micro-batch of fixed shape with `count` real ones. A classifier reads the filling sample's last token, so
/// that this sample is never empty there.
int64_t fixed_shape_rows(Head head, int64_t count);

/// `count` rounded up to one of at most eight sizes between powers of two, at least 128.
int64_t rounded_rows(int64_t count);

}  // namespace neoloom::model
