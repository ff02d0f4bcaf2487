// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>
#include <string>

#include "model/options.h"

// Products of small tiles on one CPU thread: ATen's kernel (oneDNN's brgemm) where the CPU has AVX-512, an own
// one for fp32 where AVX2 and FMA are the most it has. Which one follows from the CPU's instruction sets and oneDNN's
// limit on them (ONEDNN_MAX_CPU_ISA) alone; it changes the bits of a run.
namespace neoloom::model {

enum class Microkernel { kNone, kAvx2, kOneDnn };

/// The instruction set beyond which oneDNN is told not to go, in capitals; empty: none.
std::string onednn_limit();

/// For inputs of `dtype`; float16 has none.
Microkernel microkernel(Dtype dtype);

/// A matrix in memory, its rows `stride` elements apart.
template <typename Element>
struct Operand {
  Element* values = nullptr;
  int64_t stride = 0;

  Operand from(int64_t row) const { return {values + row * stride, stride}; }
};

/// m x n sums of k products each.
struct GemmShape {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
};

/// c [m, n] = a [m, k] b [k, n], or c + that with `add`: the sum over k is formed in its order first, whatever m and n.
/// Rows of bfloat16's b lie in pairs, [k / 2, n, 2]. Needs a kernel for the type.
void multiply_tile_block(GemmShape sizes, Operand<const float> a, Operand<const float> b, Operand<float> c, bool add);
void multiply_tile_block(GemmShape sizes, Operand<const at::BFloat16> a, Operand<const at::BFloat16> b,
                         Operand<float> c, bool add);

/// To be called by each thread after its last product with inputs of `dtype`.
void release_microkernel(Dtype dtype);

}  // namespace neoloom::model
