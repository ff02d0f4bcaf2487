// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

// nvcc compiles this code for GPUs; the C++ compiler does so for tests on CPUs.
#ifdef __CUDACC__
#define NL_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define NL_HOST_DEVICE inline
#endif
#ifdef __CUDA_ARCH__
#define NL_UNROLL _Pragma("unroll")  // arrays stay in registers only if every index is a constant
#else
#define NL_UNROLL
#endif

namespace neoloom::cuda::kernels {

NL_HOST_DEVICE float to_float(float x) { return x; }
NL_HOST_DEVICE float to_float(__half x) { return __half2float(x); }
NL_HOST_DEVICE float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
NL_HOST_DEVICE T from_float(float x);
template <>
NL_HOST_DEVICE float from_float<float>(float x) {
  return x;
}
template <>
NL_HOST_DEVICE __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
NL_HOST_DEVICE __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

/// Reads kPack neighbours as fp32. With kPack 8, `source` must be aligned to 16 bytes.
template <int kPack, class T>
NL_HOST_DEVICE void load(const T* source, float (&values)[kPack]) {
  alignas(16) T raw[kPack];
  if constexpr (kPack == 1) {
    raw[0] = *source;
  } else {
#ifdef __CUDA_ARCH__
    constexpr int kWords = kPack * sizeof(T) / sizeof(uint4);
    NL_UNROLL
    for (int i = 0; i < kWords; ++i) reinterpret_cast<uint4*>(raw)[i] = reinterpret_cast<const uint4*>(source)[i];
#else
    std::memcpy(raw, source, sizeof raw);
#endif
  }
  NL_UNROLL
  for (int i = 0; i < kPack; ++i) values[i] = to_float(raw[i]);
}

/// Writes kPack neighbours, rounded to T. With kPack 8, `target` must be aligned to 16 bytes.
template <int kPack, class T>
NL_HOST_DEVICE void store(const float (&values)[kPack], T* target) {
  alignas(16) T raw[kPack];
  NL_UNROLL
  for (int i = 0; i < kPack; ++i) raw[i] = from_float<T>(values[i]);
  if constexpr (kPack == 1) {
    *target = raw[0];
  } else {
#ifdef __CUDA_ARCH__
    constexpr int kWords = kPack * sizeof(T) / sizeof(uint4);
    NL_UNROLL
    for (int i = 0; i < kWords; ++i) reinterpret_cast<uint4*>(target)[i] = reinterpret_cast<const uint4*>(raw)[i];
#else
    std::memcpy(target, raw, sizeof raw);
#endif
  }
}

}  // namespace neoloom::cuda::kernels
