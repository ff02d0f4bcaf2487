// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/packed_weights.h"

#include <ATen/ops/zeros.h>

#include <algorithm>

#include "model/cpu/gemm_microkernel.h"

namespace neoloom::model {

namespace {

bool is_vnni(Dtype compute_dtype) { return compute_dtype == Dtype::kBFloat16; }

}  // namespace

bool has_packed_gemm(Dtype compute_dtype) { return microkernel(compute_dtype) != Microkernel::kNone; }

Dtype cpu_compute_dtype(Dtype wanted) { return has_packed_gemm(wanted) ? wanted : Dtype::kFloat32; }

at::ScalarType packed_dtype(at::ScalarType frozen, Dtype compute_dtype) {
  return is_vnni(compute_dtype) ? at::kBFloat16 : frozen;
}

std::vector<int64_t> packed_shape(int64_t k, int64_t n, Dtype compute_dtype) {
  const int64_t column_tiles = (n + kPackedColumns - 1) / kPackedColumns;
  if (is_vnni(compute_dtype)) return {column_tiles, (k + 1) / 2, kPackedColumns, 2};
  return {column_tiles, k, kPackedColumns};
}

at::Tensor pack_weights(const at::Tensor& right, Dtype compute_dtype) {
  const int64_t k = right.size(0);
  const int64_t n = right.size(1);
  at::Tensor packed_weights = at::zeros(packed_shape(k, n, compute_dtype),
                                        right.options().dtype(packed_dtype(right.scalar_type(), compute_dtype)));
  for (int64_t begin = 0; begin < n; begin += kPackedColumns) {
    const int64_t columns = std::min(kPackedColumns, n - begin);
    const at::Tensor source = right.narrow(1, begin, columns);
    at::Tensor tile = packed_weights.select(0, begin / kPackedColumns).narrow(1, 0, columns);
    if (!is_vnni(compute_dtype)) {
      tile.copy_(source);
      continue;
    }
    for (int64_t parity = 0; parity < 2; ++parity) {
      const int64_t rows = (k + 1 - parity) / 2;
      tile.select(2, parity).narrow(0, 0, rows).copy_(source.slice(0, parity, k, 2));
    }
  }
  return packed_weights;
}

std::string cpu_gemm_kernels() {
  std::string found;
  for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBFloat16}) {
    if (!has_packed_gemm(dtype)) continue;
    const bool own = microkernel(dtype) == Microkernel::kAvx2;
    found += dtype_name(dtype) + (own ? "-panels-avx2 " : "-panels ");
  }
  if (const std::string limit = onednn_limit(); !limit.empty()) found += "up to " + limit + " ";
  return found;
}

}  // namespace neoloom::model
