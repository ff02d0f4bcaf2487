// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "model/model.h"

namespace neoloom::model {

/// The sizes of a micro-batch that determine memory. Padding is dropped, so only real tokens count.
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
  bool packed_weights = false;  // the CPU uses packed GEMM (packed_weights.h)
  int64_t threads = 1;
};

/// Tensors of a micro-step, in bytes. Buffers of the caller (parameters, gradients) and weights do not count.
struct StepMemory {
  int64_t block_saved_bytes = 0;  // what a block in the middle keeps for backward (BlockSaved) without checkpointing
  int64_t saved_bytes = 0;        // what all blocks keep at the end of forward
  int64_t peak_bytes = 0;         // peak of all tensors
};

/// Runs a training micro-step on the meta device (MemoryLedger) and counts the bytes of each tensor. Does not see
/// internal memory of LibTorch and BLAS. Thread: one plan at a time. Throws: Error(kUsage) when a LoRA target matches
/// no module.
StepMemory training_memory(const MemorySetup& setup, const BatchShape& shape);

/// A GEMM with a frozen matrix [out, in] of a CPU's micro-step: x W^T, or dy W if `backward`.
struct StepGemm {
  int64_t rows = 0;
  int64_t in = 0;
  int64_t out = 0;
  bool backward = false;
  int64_t count = 0;  // how many of this shape the micro-step computes

  /// FLOPs of one of them.
  double flops() const { return 2.0 * static_cast<double>(rows) * static_cast<double>(in) * static_cast<double>(out); }
};

/// Runs a training micro-step as training_memory does, and lists its GEMMs. `setup` is a CPU's.
std::vector<StepGemm> training_gemms(const MemorySetup& setup, const BatchShape& shape);

/// The peak of an evaluation batch.
int64_t evaluation_peak_bytes(const MemorySetup& setup, const BatchShape& shape);

/// Bytes of the weights, without trainable parameters.
struct WeightMemory {
  int64_t mapped_bytes = 0;   // mapped files, once per node
  int64_t read_bytes = 0;     // the part of them that steps read
  int64_t private_bytes = 0;  // per rank: on a GPU all weights, on CPUs small tensors converted to fp32
};
WeightMemory weight_memory(const MemorySetup& setup);

}  // namespace neoloom::model
