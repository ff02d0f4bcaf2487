// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace neoloom::model {

/// Returns an uninitialised [m, n] CPU tensor for activations that GEMMs read or write by tiles. Columns are
/// contiguous. A row stride that is a multiple of 4 KiB would map a tile to few cache sets, so it is one cache line
/// larger then.
at::Tensor empty_rows(int64_t m, int64_t n, const at::TensorOptions& options);

/// Returns x if it has `type`, else a copy in `type` in such a matrix.
at::Tensor rows_as(const at::Tensor& x, at::ScalarType type);

}  // namespace neoloom::model
