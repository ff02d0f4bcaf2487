// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/token_store.h"
#include "launch/planning/device_sheets.h"
#include "launch/planning/gemm_rates.h"
#include "model/memory/memory_plan.h"

namespace neoloom::launch {

/// Returns the tokens of so many epochs.
double tokens_of_epochs(const data::TokenStore& store, double epochs);

/// The device of a rank that a plan is for.
struct StatedDevice {
  bool gpu = false;
  const DeviceSheet* sheet = nullptr;  // of a GPU; null: none
  double gflops = 0.0;                 // GFLOP/s that GEMMs reach; 0: as measured, or a share of the sheet's peak
  double memory_gb = 0.0;              // 10^9 bytes, of a GPU, or of a machine for CPUs; 0: what is free here
};

/// Returns the device of `plan`'s options. An empty name is the configuration's (`gpu`), "cuda" a GPU that the other
/// two state, "cpu" a CPU like this one. Throws: Error(kUsage) for an unknown name, with those that are known; for a
/// GPU of which something is missing.
StatedDevice stated_device(const std::string& name, double gflops, double memory_gb, bool gpu);

/// The time of a micro-step, and where it comes from.
struct MicroStepTime {
  double tokens = 0.0;
  double gemm_seconds = 0.0;
  double rest_seconds = 0.0;  // everything else but the all-reduce
  std::string gemm_source;
  std::string rest_source;
};

/// Estimates a micro-step with `rows` samples, or packs, of the store's mean length on a GPU. Its constants are fitted
/// to the steps that tests/bench/README.md measured on an H200; they meet each of them within 15 %.
MicroStepTime gpu_micro_step(const model::MemorySetup& setup, const data::TokenStore& store, int64_t rows,
                             const StatedDevice& device);

/// The same on a CPU of setup.threads threads, at rates measured before, or at the stated one. Returns nullopt without
/// either.
std::optional<MicroStepTime> cpu_micro_step(const model::MemorySetup& setup, const data::TokenStore& store,
                                            int64_t rows, const StatedDevice& device, const GemmRates& rates);

/// Returns the expected seconds of a CPU's step whose GEMMs take so long.
double cpu_step_seconds(double gemm_seconds);

/// "12.3 s", "45 min", "2.5 h".
std::string readable_seconds(double seconds);

/// The links between ranks.
struct Network {
  double link_gbps = 100.0;  // 10^9 bits per second, each way
  double latency_us = 10.0;
};

/// Seconds of an all-reduce over equal links: reduce-scatter and all-gather, each in log2(ranks) rounds (R.
/// Rabenseifner, Optimization of Collective Reduction Operations, 2004). The sums themselves do not count.
double all_reduce_seconds(int64_t bytes, int64_t ranks, const Network& network);

}  // namespace neoloom::launch
