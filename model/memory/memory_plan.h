// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "model/model.h"

namespace neoloom::model {

/// A micro-batch as memory sees it: padding is dropped, so that only real tokens count.
struct BatchShape {
  int64_t samples = 0;
  int64_t tokens = 0;   // of all samples together
  int64_t longest = 0;  // tokens of the longest sample
  int64_t targets = 0;  // causal LM: tokens with a label, at most
};

/// Everything that decides how much memory a micro-step takes.
struct MemorySetup {
  ModelSetup model;
  Dtype frozen_dtype = Dtype::kFloat16;
  bool packed_weights = false;  // the host multiplies packed weights (packed weights.h)
  int64_t threads = 1;
};

/// Tensors of a micro-step, in bytes. Buffers of the caller (parameters, gradients) and weights do not count.
struct StepMemory {
  int64_t block_saved_bytes = 0;  // what a block in the middle keeps for backward (BlockSaved) without checkpointing
  int64_t saved_bytes = 0;        // what all blocks keep, when forward ends
  int64_t peak_bytes = 0;         // everything, when it is most
};

/// Runs a training micro-step on tensors without values (MemoryLedger) and counts each tensor that is made there.
/// LibTorch's and BLAS's memory of their own is not seen. Thread: one plan at a time. Throws: Error(kUsage) when a LoRA
/// target matches no module.
StepMemory training_memory(const MemorySetup& setup, const BatchShape& shape);

/// The peak of an evaluation batch.
int64_t evaluation_peak_bytes(const MemorySetup& setup, const BatchShape& shape);

/// Sizes of the weights beside the parameters that train.
struct WeightMemory {
  int64_t mapped_bytes = 0;   // files in host memory, once a node
  int64_t read_bytes = 0;     // the part of them that steps read
  int64_t private_bytes = 0;  // each rank's own: on a GPU everything, on CPUs small tensors converted to fp32
};
WeightMemory weight_memory(const MemorySetup& setup);

}  // namespace neoloom::model
