// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "runtime/cuda/fused_kernels.h"
#include "runtime/cuda/kernels/geometry.h"
#include "runtime/cuda/kernels/pack.h"

namespace neoloom::cuda::kernels {

// From values that are known when a kernel starts to the constants that it was compiled with.

inline constexpr int kNotSupported = 801;  // cudaErrorNotSupported

template <class... Pointers>
bool all_aligned(Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

/// Whether every tensor begins at a multiple of 16 bytes.
inline bool aligned(const ResidualNorm& work) {
  return all_aligned(work.residual, work.delta, work.bias, work.weight, work.shift, work.sum, work.normed);
}
inline bool aligned(const ResidualNormGrad& work) {
  return all_aligned(work.d_normed, work.sum, work.weight, work.d_sum);
}
inline bool aligned(const BiasGelu& work) { return all_aligned(work.bias, work.input, work.activated); }
inline bool aligned(const BiasGeluGrad& work) { return all_aligned(work.input, work.d_activated, work.d_input); }

/// Returns start<T>(), with the C++ type of `type`.
template <class Start>
int with_type(ElementType type, Start&& start) {
  switch (type) {
    case ElementType::kFloat16:
      return start.template operator()<__half>();
    case ElementType::kBFloat16:
      return start.template operator()<__nv_bfloat16>();
    case ElementType::kFloat32:
      break;
  }
  return start.template operator()<float>();
}

/// Returns start<pack, rounds>(), with those of a row kernel; 0 if no row is to be done; kNotSupported without
/// geometry.
template <class Start>
int with_rounds(const std::optional<Geometry>& geometry, Start&& start) {
  if (!geometry) return kNotSupported;
  if (geometry->blocks == 0) return 0;
  if (geometry->pack == kPack) {
    return geometry->rounds == 1 ? start.template operator()<kPack, 1>()
                                 : start.template operator()<kPack, kMaxValues / kPack>();
  }
  return geometry->rounds == 1 ? start.template operator()<1, 1>() : start.template operator()<1, kMaxValues>();
}

}  // namespace neoloom::cuda::kernels
