// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace neoloom::probes {

/// What a candidate does. All of it is on the GPU's default stream.
struct Work {
  std::function<std::vector<at::Tensor>()> run;  // returns its results
  std::function<void()> reset;                   // restores the inputs that `run` overwrites; may be empty
  /// Returns the largest error of the results relative to the largest value of the reference.
  std::function<double(const std::vector<at::Tensor>& results)> error;
  double flops = 0.0;
};

/// Returns max |found - expected| / max |expected|, computed in fp32; infinity if a value is not finite.
double relative_error(const at::Tensor& found, const at::Tensor& expected);

}  // namespace neoloom::probes
