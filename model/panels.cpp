// SPDX-License-Identifier: Apache-2.0
#include "model/panels.h"

#include <ATen/native/CPUBlas.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <exception>

namespace neoloom::model {

namespace {

bool in_pairs(Dtype compute_dtype) { return compute_dtype == Dtype::kBFloat16; }

bool cpu_has_instructions(Dtype compute_dtype) {
#if defined(__x86_64__)
  if (compute_dtype == Dtype::kFloat32) return __builtin_cpu_supports("avx512f") != 0;
  return in_pairs(compute_dtype) && __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

/// oneDNN may be told to use fewer instruction sets than there are; then its block kernel refuses, in LibTorch's or in
/// its own words. A product tells.
bool kernel_runs(Dtype compute_dtype) {
  try {
    float c = 0.0F;
    if (in_pairs(compute_dtype)) {
      const c10::BFloat16 two[2] = {c10::BFloat16(2.0F), c10::BFloat16(2.0F)};
      at::native::cpublas::brgemm(1, 1, 2, 2, 1, 1, false, two, two, &c, /*is_vnni=*/true);
      at::native::cpublas::brgemm_release(/*is_vnni=*/true);
      return c == 8.0F;
    }
    const float two = 2.0F;
    at::native::cpublas::brgemm(1, 1, 1, 1, 1, 1, false, &two, &two, &c, /*is_vnni=*/false);
    at::native::cpublas::brgemm_release(/*is_vnni=*/false);
    return c == 4.0F;
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

bool multiplies_panels(Dtype compute_dtype) {
  static const bool wide = cpu_has_instructions(Dtype::kFloat32) && kernel_runs(Dtype::kFloat32);
  static const bool pairs = cpu_has_instructions(Dtype::kBFloat16) && kernel_runs(Dtype::kBFloat16);
  if (compute_dtype == Dtype::kFloat32) return wide;
  return in_pairs(compute_dtype) && pairs;
}

at::ScalarType panel_dtype(at::ScalarType frozen, Dtype compute_dtype) {
  return in_pairs(compute_dtype) ? at::kBFloat16 : frozen;
}

std::vector<int64_t> panel_shape(int64_t k, int64_t n, Dtype compute_dtype) {
  const int64_t panels = (n + kPanelColumns - 1) / kPanelColumns;
  if (in_pairs(compute_dtype)) return {panels, (k + 1) / 2, kPanelColumns, 2};
  return {panels, k, kPanelColumns};
}

at::Tensor pack_panels(const at::Tensor& right, Dtype compute_dtype) {
  const int64_t k = right.size(0);
  const int64_t n = right.size(1);
  at::Tensor panels = at::zeros(panel_shape(k, n, compute_dtype),
                                right.options().dtype(panel_dtype(right.scalar_type(), compute_dtype)));
  for (int64_t begin = 0; begin < n; begin += kPanelColumns) {
    const int64_t columns = std::min(kPanelColumns, n - begin);
    const at::Tensor source = right.narrow(1, begin, columns);
    at::Tensor panel = panels.select(0, begin / kPanelColumns).narrow(1, 0, columns);
    if (!in_pairs(compute_dtype)) {
      panel.copy_(source);
      continue;
    }
    for (int64_t parity = 0; parity < 2; ++parity) {
      const int64_t rows = (k + 1 - parity) / 2;
      panel.select(2, parity).narrow(0, 0, rows).copy_(source.slice(0, parity, k, 2));
    }
  }
  return panels;
}

}  // namespace neoloom::model
