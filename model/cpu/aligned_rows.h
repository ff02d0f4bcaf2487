// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace neoloom::model {

/// Uninitialised [m, n] on the host for activations that products read or write by tiles. Rows whose size is a multiple
/// of 4 KiB would put a tile's lines on a few sets of the cache, so those lie one line further apart: the columns are
/// contiguous, the matrix may not be.
at::Tensor empty_rows(int64_t m, int64_t n, const at::TensorOptions& options);

/// x in `type`, copied to such a matrix; x itself where it has the type.
at::Tensor rows_as(const at::Tensor& x, at::ScalarType type);

}  // namespace neoloom::model
