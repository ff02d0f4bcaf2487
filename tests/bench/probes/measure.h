// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "tests/bench/probes/probe.h"

namespace neoloom::probes {

/// What a candidate does. All of it is on the GPU's default stream.
struct Work {
  std::function<std::vector<at::Tensor>()> run;  // returns its results
  std::function<void()> reset;                   // restores the inputs that `run` overwrites; may be empty
  /// Returns the largest error of the results relative to the largest value of the reference.
  std::function<double(const std::vector<at::Tensor>& results)> error;
  double flops = 0.0;
};

/// Runs twice from equal inputs, then times. Returns "milliseconds" (median), "tflops", "equal_bits", "relative_error".
Json measure(const Work& work);

/// Returns the median milliseconds of a run, without the time in which the host launches it.
double median_milliseconds(const std::function<void()>& run, int runs);

/// Returns max |found - expected| / max |expected|, computed in fp32; infinity if a value is not finite.
double relative_error(const at::Tensor& found, const at::Tensor& expected);

/// Checks that there is a GPU, and sets up LibTorch as neoloom does. Returns {"machine": {device, capability and
/// versions}}. Throws: Error(kDevice).
Json prepare_device();

/// Whether the device still works. An illegal access ends its use by this process.
bool device_works();

/// N(0, 1) values on the GPU, times `scale`. Equal seeds give equal values.
at::Tensor random_values(at::IntArrayRef shape, at::ScalarType dtype, double scale, uint64_t seed);

}  // namespace neoloom::probes
