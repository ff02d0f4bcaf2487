// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/aligned_rows.h"

#include <ATen/ops/empty.h>

namespace neoloom::model {

at::Tensor empty_rows(int64_t m, int64_t n, const at::TensorOptions& options) {
  constexpr int64_t kPageBytes = 4096;
  constexpr int64_t kLineBytes = 64;
  const auto size = static_cast<int64_t>(options.dtype().itemsize());
  if (n * size % kPageBytes != 0) return at::empty({m, n}, options);
  return at::empty({m, n + kLineBytes / size}, options).narrow(1, 0, n);
}

at::Tensor rows_as(const at::Tensor& x, at::ScalarType type) {
  if (x.scalar_type() == type) return x;
  at::Tensor y = empty_rows(x.size(0), x.size(1), x.options().dtype(type));
  y.copy_(x);
  return y;
}

}  // namespace neoloom::model
