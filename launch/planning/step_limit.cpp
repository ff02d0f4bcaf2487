// SPDX-License-Identifier: Apache-2.0
#include "launch/planning/step_limit.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <numeric>
#include <span>
#include <vector>

#include "launch/job/device.h"
#include "launch/planning/matmul_rate.h"
#include "launch/system/cpu_info.h"
#include "model/flops.h"
#include "model/lora/trainable_count.h"
#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

// Smaller shapes, e.g. those of a classifier's last tokens, are not worth a measurement.
constexpr double kSmallShare = 0.02;

double mean(std::span<const int32_t> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// Returns the mean number of samples in `rows` packs.
double mean_samples(const data::TokenStore& store, int64_t rows) {
  return static_cast<double>(rows * store.size()) / static_cast<double>(store.packs());
}

model::BatchShape mean_batch(const data::TokenStore& store, int64_t rows) {
  const double samples = mean_samples(store, rows);
  const auto together = [samples](double each) { return std::max<int64_t>(1, std::llround(each * samples)); };
  model::BatchShape batch;
  batch.samples = together(1.0);
  batch.tokens = together(mean(store.lengths()));
  batch.longest = (batch.tokens + batch.samples - 1) / batch.samples;
  batch.targets = together(mean(store.target_counts()));
  return batch;
}

double attention_flops(const model::GptNeoConfig& config, const data::TokenStore& store) {
  double flops = 0.0;
  for (const int32_t length : store.lengths()) flops += length * model::attention_flops_per_token(config, length);
  return flops / static_cast<double>(store.size());
}

double flops_of(const model::StepGemm& gemm) { return static_cast<double>(gemm.count) * gemm.flops(); }

/// Returns the FLOPs of the gradients of what is trained. Each frozen matrix that is trained, too, has one GEMM for its
/// gradient, of the size of its forward one.
double parameter_flops(model::MemorySetup setup, const model::BatchShape& batch) {
  if (setup.model.lora) {
    return 6.0 * static_cast<double>(batch.tokens) *
           static_cast<double>(
               model::count_trainable(setup.model.config, setup.model.lora, setup.model.num_labels).parameters);
  }
  setup.model.gradient_checkpointing = false;
  double flops = 0.0;
  for (const model::StepGemm& gemm : model::training_gemms(setup, batch)) flops += gemm.backward ? 0.0 : flops_of(gemm);
  return flops;
}

std::string today() { return fmt::format("{:%F}", fmt::gmtime(std::time(nullptr))); }

}  // namespace

MicroStepWork micro_step_work(const model::MemorySetup& setup, const data::TokenStore& store, int64_t rows) {
  MicroStepWork work;
  work.batch = mean_batch(store, rows);
  work.gemms = model::training_gemms(setup, work.batch);
  for (const model::StepGemm& gemm : work.gemms) work.gemm_flops += flops_of(gemm);
  work.attention_flops = mean_samples(store, rows) * attention_flops(setup.model.config, store);
  work.parameter_flops = parameter_flops(setup, work.batch);
  return work;
}

std::optional<MicroStepLimit> micro_step_limit(const model::MemorySetup& setup, const data::TokenStore& store,
                                               int64_t rows, const RateOf& rate_of) {
  const MicroStepWork work = micro_step_work(setup, store, rows);
  double flops = 0.0;
  double seconds = 0.0;
  for (const model::StepGemm& gemm : work.gemms) {
    if (flops_of(gemm) < kSmallShare * work.gemm_flops) continue;
    const std::optional<double> rate = rate_of(gemm);
    if (!rate) return std::nullopt;
    flops += flops_of(gemm);
    seconds += flops_of(gemm) / *rate;
  }
  MicroStepLimit limit;
  limit.tokens = static_cast<double>(work.batch.tokens);
  limit.flops = work.flops();
  limit.seconds = limit.flops * seconds / flops;
  return limit;
}

std::optional<MicroStepLimit> known_limit(const model::MemorySetup& setup, const data::TokenStore& store, int64_t rows,
                                          const GemmRates& rates) {
  if (rates.empty() || setup.model.device.cuda) return std::nullopt;
  std::string oldest;
  auto limit = micro_step_limit(setup, store, rows, [&](const model::StepGemm& gemm) -> std::optional<double> {
    const std::optional<GemmRate> rate = rates.find(setup, gemm);
    if (!rate) return std::nullopt;
    if (oldest.empty() || rate->date < oldest) oldest = rate->date;
    return rate->gflops * 1e9;
  });
  if (limit)
    limit->rates = fmt::format("measured {} on {} with {} thread{}", oldest, cpu_model(), setup.threads,
                               setup.threads == 1 ? "" : "s");
  return limit;
}

void measure_rates(const model::MemorySetup& setup, const data::TokenStore& store, int64_t rows, GemmRates& rates) {
  constexpr double kSecondsForEach = 0.3;
  constexpr int64_t kLargestMatrix = int64_t{1} << 30;
  set_threads(setup.threads);
  micro_step_limit(setup, store, rows, [&](model::StepGemm gemm) {
    core::require(gemm.in * gemm.out <= kLargestMatrix, core::ErrorKind::kUsage,
                  "a matrix of {} x {} is too large to be measured", gemm.in, gemm.out);
    gemm.rows = measured_rows(gemm.rows);
    // On a busy machine the fastest call is nearest to what an idle one reaches.
    const double rate = gemm.flops() / measure_gemm_seconds(setup, gemm, kSecondsForEach).fastest;
    rates.set(setup, gemm, {rate * 1e-9, today()});
    return std::optional(rate);
  });
  rates.save();
}

}  // namespace neoloom::launch
