// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "tests/bench/probes/probe.h"
#include "tests/bench/probes/work.h"

namespace neoloom::probes {

/// Runs twice from equal inputs, then times. Returns "milliseconds" (median), "tflops", "equal_bits", "relative_error".
Json measure(const Work& work);

/// Returns the median milliseconds of a run, without the time in which the host launches it.
double median_milliseconds(const std::function<void()>& run, int runs);

/// Checks that there is a GPU, and sets up LibTorch as neoloom does. Returns {"machine": {device, capability and
/// versions}}. Throws: Error(kDevice).
Json prepare_device();

/// Whether the device still works. An illegal access ends its use by this process.
bool device_works();

/// N(0, 1) values on the GPU, times `scale`. Equal seeds give equal values.
at::Tensor random_values(at::IntArrayRef shape, at::ScalarType dtype, double scale, uint64_t seed);

}  // namespace neoloom::probes
