// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/token_store.h"
#include "launch/planning/gemm_rates.h"
#include "model/memory/memory_plan.h"

namespace neoloom::launch {

/// Why a limit is unknown.
inline constexpr const char* kHowToMeasure = "neoloom plan --measure measures it";
inline constexpr const char* kNoGpuRates = "GEMM rates are measured on CPUs only";

/// The work of a micro-step with `rows` samples, or packs, of the store's mean length. Padding does not count.
struct MicroStepWork {
  model::BatchShape batch;
  std::vector<model::StepGemm> gemms;  // with frozen matrices
  double gemm_flops = 0.0;             // of these
  double attention_flops = 0.0;
  double parameter_flops = 0.0;  // of the gradients of what is trained

  double flops() const { return gemm_flops + attention_flops + parameter_flops; }
};
MicroStepWork micro_step_work(const model::MemorySetup& setup, const data::TokenStore& store, int64_t rows);

/// FLOP/s of a GEMM; nullopt: unknown.
using RateOf = std::function<std::optional<double>(const model::StepGemm&)>;

/// The limit of a CPU's micro-step: it takes at least the time of its GEMMs.
struct MicroStepLimit {
  double tokens = 0.0;
  double flops = 0.0;
  double seconds = 0.0;
  std::string rates;  // known_limit: "measured 2026-11-28 on NAME with 2 threads", the oldest day

  double seconds_per_token() const { return seconds / tokens; }
};

/// Returns the limit of that micro-step. Attention, LoRA and shapes with few FLOPs count at the mean rate of the
/// others. Returns nullopt if `rate_of` does.
std::optional<MicroStepLimit> micro_step_limit(const model::MemorySetup& setup, const data::TokenStore& store,
                                               int64_t rows, const RateOf& rate_of);

/// The same at rates that were measured before.
std::optional<MicroStepLimit> known_limit(const model::MemorySetup& setup, const data::TokenStore& store, int64_t rows,
                                          const GemmRates& rates);

/// Measures, on this CPU with setup.threads threads, the rates that known_limit() needs, and saves them: of the fastest
/// call of each shape. Takes half a second or a little more for each. Throws: Error(kUsage) when a matrix has more than
/// 2^30 elements.
void measure_rates(const model::MemorySetup& setup, const data::TokenStore& store, int64_t rows, GemmRates& rates);

}  // namespace neoloom::launch
