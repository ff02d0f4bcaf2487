// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "tests/bench/probes/attention_cases.h"

namespace neoloom::probes {

/// Tensors of a graph; those that it does not have stay undefined. Rows [N, H, d], or [B, T, H, d] where they are even
/// or padded, all contiguous.
struct GraphTensors {
  at::Tensor q, k, v, out;
  at::Tensor stats;             // [B, H, T, 1] fp32: logarithm of each softmax's sum
  at::Tensor lengths;           // [B] int32: ragged and padded rows
  at::Tensor offsets;           // [B + 1] int32: ragged rows, where each sample begins, in elements
  at::Tensor grad, dq, dk, dv;  // backward
};

/// One pass of attention as a graph of cuDNN with a single attention node, built with nvidia-cudnn-frontend.
///
/// Libraries of cuDNN 9.26 that such a graph loads: libcudnn.so.9, _graph, _heuristic and _engines_runtime_compiled.
/// _engines_precompiled and _engines_tensor_ir are loaded if they are there; without them cuDNN uses its JIT mode.
/// (Seen without a GPU, up to where a driver is needed.) LD_LIBRARY_PATH decides which libcudnn.so.9 a probe gets. Its
/// own run path ($ORIGIN) finds the others beside it.
class AttentionGraph {
 public:
  /// Throws: Error(kDevice) with what cuDNN says if it has no such graph, or if this program was built without the
  /// frontend.
  AttentionGraph(const AttentionCase& layer, Pass pass, RowLayout layout, SumOrder order);
  ~AttentionGraph();

  /// Runs on the default stream. Writes out and stats, or dq, dk and dv.
  void run(const GraphTensors& tensors);
  int64_t workspace_bytes() const;

 private:
  class Built;
  std::unique_ptr<Built> built_;
};

}  // namespace neoloom::probes
