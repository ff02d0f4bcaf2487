// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace neoloom::model {

/// Random initial values as pure functions of (seed, name): no other tensor, rank or device changes them.
/// Shapes: `out` fp32, contiguous, on any device; overwritten.
void fill_uniform(at::Tensor out, double bound, uint64_t seed, const std::string& name);  // U(-bound, bound)
void fill_normal(at::Tensor out, double deviation, uint64_t seed, const std::string& name);

}  // namespace neoloom::model
