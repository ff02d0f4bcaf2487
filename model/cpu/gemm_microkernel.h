// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>
#include <string>

#include "model/options.h"

// GEMM of small tiles on one CPU thread. With AVX-512 it is oneDNN's brgemm, through ATen; with AVX2 and FMA at most, a
// kernel of ours for fp32. The choice depends only on the CPU's instruction sets and oneDNN's limit on them
// (ONEDNN_MAX_CPU_ISA). It affects the bits of a run.
namespace neoloom::model {

enum class Microkernel { kNone, kAvx2, kOneDnn };

/// The instruction set that oneDNN is limited to (ONEDNN_MAX_CPU_ISA), in capitals; empty: no limit.
std::string onednn_limit();

/// Returns the microkernel for inputs of `dtype`; float16 has none.
Microkernel microkernel(Dtype dtype);

/// A matrix in memory, its rows `stride` elements apart.
template <typename Element>
struct Operand {
  Element* values = nullptr;
  int64_t stride = 0;

  Operand from(int64_t row) const { return {values + row * stride, stride}; }
};

/// Sizes of c [m, n] = a [m, k] b [k, n].
struct GemmShape {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
};

/// c [m, n] = a [m, k] b [k, n], or c += a b with `add`. The sum over k is accumulated in order and then added to c,
/// whatever m and n are. A bfloat16 b has its rows interleaved in pairs, [k / 2, n, 2]. Requires a microkernel for the
/// type.
void multiply_tile(GemmShape sizes, Operand<const float> a, Operand<const float> b, Operand<float> c, bool add);
void multiply_tile(GemmShape sizes, Operand<const at::BFloat16> a, Operand<const at::BFloat16> b, Operand<float> c,
                   bool add);

/// Releases the calling thread's microkernel state. Each thread calls it after its last multiply_tile with inputs
/// of `dtype`.
void release_microkernel(Dtype dtype);

}  // namespace neoloom::model
