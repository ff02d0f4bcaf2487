// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "tests/bench/probes/attention_cases.h"

namespace neoloom::probes {

/// Rows of the first and the last sample, of the first and the last head: what attention's results are compared on.
class AttentionSlice {
 public:
  explicit AttentionSlice(const AttentionCase& layer);

  /// Shapes: [N, H, d] -> [n, 2 d].
  at::Tensor of(const at::Tensor& rows) const;

  /// Returns out and, if `grad` is defined, dq, dk, dv of the slice [n, 2 d] in fp32, from batched matmuls and softmax.
  std::vector<at::Tensor> reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const at::Tensor& grad) const;

 private:
  AttentionCase layer_;
  model::SequenceSpan first_, last_;
};

}  // namespace neoloom::probes
