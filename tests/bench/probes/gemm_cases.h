// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/gpt_neo_config.h"
#include "tests/bench/probes/probe.h"

namespace neoloom::probes {

/// A released GPT-Neo and the token rows of a micro-batch.
struct GemmModel {
  std::string name;
  model::GptNeoConfig config;
  std::vector<int64_t> rows;
};
std::vector<GemmModel> gemm_models();

/// y [n, m] = x [n, k] W^T with W [m, k] (forward), or x W with W [k, m] (backward).
struct Gemm {
  int64_t n = 0;
  int64_t k = 0;
  int64_t m = 0;
  bool backward = false;
  int64_t count = 0;  // in a training step

  double flops() const { return 2.0 * static_cast<double>(n) * static_cast<double>(k) * static_cast<double>(m); }
  bool operator==(const Gemm&) const = default;
};

/// Returns the GEMMs of a causal LM's training step on a GPU: those of model::training_gemms, the head's with
/// the padded vocabulary and with the chunks of a GPU, and those of the gradients of q, k and v as one.
std::vector<Gemm> step_gemms(const model::GptNeoConfig& config, int64_t rows);

/// What is computed around a GEMM.
enum class Operation {
  kGemm,         // y = x W, 16 bits
  kGemmFp32,     // the same in fp32
  kSumFp32,      // y += x W, fp32
  kMlpForward,   // pre = x W^T + b; gelu(pre), both in 16 bits
  kMlpBackward,  // (dy W) gelu'(pre), 16 bits
  kResidual,     // y = residual + b + x W^T, fp32
  kLoraUp,       // y += s down B^T, fp32
  kLoraForward,  // y = x W^T + s (x A^T) B^T, 16 bits
};

/// Ways to compute an Operation. Not every operation has all of them.
enum class Way {
  kToday,          // as model/cuda and gpt_neo/cuda_backend do it
  kCublasLt,       // the best of cublasLt's first algorithms
  kBiasEpilogue,   // kMlpForward: epilogue BIAS, then gelu
  kFusedEpilogue,  // epilogues GELU_AUX_BIAS, DGELU, or BIAS with beta = 1
  kFrozenFirst,    // kLoraForward: x W^T, then B with beta = 1
  kExtended,       // kLoraForward: one GEMM with k + r columns, whose last r are x A^T
};

struct GemmItem : Item {
  Gemm gemm;
  Operation operation = Operation::kGemm;
  Way way = Way::kToday;
  int64_t rank = 0;  // LoRA's r
};

/// All items, the most valuable first. The ways of an operation follow one another.
std::vector<GemmItem> gemm_items();

}  // namespace neoloom::probes
