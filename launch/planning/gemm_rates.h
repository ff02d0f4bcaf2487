// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>

#include "model/memory/memory_plan.h"
#include "runtime/core/cache.h"

namespace neoloom::launch {

/// How fast a GEMM was, and the day on which it was measured (UTC, "2026-11-28").
struct GemmRate {
  double gflops = 0.0;  // GFLOP/s
  std::string date;
};

/// The measured rates of a CPU's GEMMs: gemm-rates.json in the cache. A rate belongs to processor, instruction sets,
/// threads, versions, dtypes and shape. GEMMs whose rows round to the same power of two are of one shape.
class GemmRates {
 public:
  /// Reads the file. A missing file holds no rates. Neither does one that is damaged, or that other users could have
  /// written: cache.say gets a line, and save() replaces it.
  explicit GemmRates(core::Cache cache);

  bool empty() const { return rates_.empty(); }
  std::optional<GemmRate> find(const model::MemorySetup& setup, const model::StepGemm& gemm) const;
  void set(const model::MemorySetup& setup, const model::StepGemm& gemm, GemmRate rate);
  /// Writes the file. Of two processes that save at once, the later one wins. Throws: WriteError(kUsage).
  void save() const;

 private:
  core::Cache cache_;
  std::string path_;
  std::string damage_;                                            // why the file on disk was not read
  std::map<std::string, std::map<std::string, GemmRate>> rates_;  // by machine and dtypes, then by shape
};

/// The rows with which a GEMM of `rows` rows is measured: the nearest power of two.
int64_t measured_rows(int64_t rows);

}  // namespace neoloom::launch
