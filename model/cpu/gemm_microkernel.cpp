// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/gemm_microkernel.h"

#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <exception>
#include <string>

#include "model/cpu/gemm_microkernel_avx2.h"
#include "runtime/core/environment.h"

namespace neoloom::model {

namespace {

bool cpu_has_avx512(Dtype dtype) {
#if defined(__x86_64__)
  if (dtype == Dtype::kFloat32) return __builtin_cpu_supports("avx512f") != 0;
  return dtype == Dtype::kBFloat16 && __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

bool below_avx2(const std::string& limit) { return limit == "SSE41" || limit == "AVX"; }
bool below_avx512(const std::string& limit) { return below_avx2(limit) || limit.starts_with("AVX2"); }

/// Returns whether oneDNN's microkernel runs, by trying a GEMM. With too low a limit on instruction sets, ATen silently
/// computes fp32 in another way, and throws for bfloat16.
bool brgemm_runs(Dtype dtype) {
  if (!cpu_has_avx512(dtype) || below_avx512(onednn_limit())) return false;
  try {
    float c = 0.0F;
    if (dtype == Dtype::kBFloat16) {
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

Microkernel find_kernel(Dtype dtype) {
  if (brgemm_runs(dtype)) return Microkernel::kOneDnn;
  return dtype == Dtype::kFloat32 && avx2::runs() && !below_avx2(onednn_limit()) ? Microkernel::kAvx2
                                                                                 : Microkernel::kNone;
}

}  // namespace

std::string onednn_limit() {
  std::string limit = core::environment({"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"});
  std::transform(limit.begin(), limit.end(), limit.begin(), [](unsigned char c) { return std::toupper(c); });
  return limit;
}

Microkernel microkernel(Dtype dtype) {
  static const Microkernel fp32 = find_kernel(Dtype::kFloat32);
  static const Microkernel bf16 = find_kernel(Dtype::kBFloat16);
  switch (dtype) {
    case Dtype::kFloat32:
      return fp32;
    case Dtype::kBFloat16:
      return bf16;
    case Dtype::kFloat16:
      break;
  }
  return Microkernel::kNone;
}

void multiply_tile(GemmShape sizes, Operand<const float> a, Operand<const float> b, Operand<float> c, bool add) {
  if (microkernel(Dtype::kFloat32) == Microkernel::kAvx2) return avx2::multiply(sizes, a, b, c, add);
  at::native::cpublas::brgemm(sizes.m, sizes.n, sizes.k, a.stride, b.stride, c.stride, add, a.values, b.values,
                              c.values, /*is_vnni=*/false);
}

void multiply_tile(GemmShape sizes, Operand<const at::BFloat16> a, Operand<const at::BFloat16> b, Operand<float> c,
                   bool add) {
  at::native::cpublas::brgemm(sizes.m, sizes.n, sizes.k, a.stride, b.stride, c.stride, add, a.values, b.values,
                              c.values, /*is_vnni=*/true);
}

void release_microkernel(Dtype dtype) {
  if (microkernel(dtype) == Microkernel::kOneDnn) {
    at::native::cpublas::brgemm_release(/*is_vnni=*/dtype == Dtype::kBFloat16);
  }
}

}  // namespace neoloom::model
