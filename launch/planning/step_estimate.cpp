// SPDX-License-Identifier: Apache-2.0
#include "launch/planning/step_estimate.h"

#include <cmath>
#include <numeric>

#include "launch/planning/step_limit.h"
#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;

// Fitted to the section "Training steps on a GPU" of tests/bench/README.md: bf16 on an H200.
constexpr double kGemmShare = 0.64;       // of the peak, in the GEMMs of 1.3B
constexpr double kAttentionShare = 0.13;  // of the peak, in flash attention
constexpr double kTrafficBytes = 235.0;   // of memory, for each token, block and hidden unit
constexpr double kLogitBytes = 23.0;      // of memory, for each logit of a language model
constexpr double kBlockSeconds = 0.2e-3;  // to launch the kernels of a block
// "Makes steps about a third longer": forward of the blocks again. GEMMs are counted.
constexpr double kRecompute = 4.0 / 3.0;
// The same page: on CPUs a step takes 1.1 to 1.2 times as long as its GEMMs.
constexpr double kCpuRest = 0.15;

constexpr const char* kMeasuredOn = "h200";

}  // namespace

StatedDevice stated_device(const std::string& name, double gflops, double memory_gb, bool gpu) {
  StatedDevice device;
  device.gflops = gflops;
  device.memory_gb = memory_gb;
  device.gpu = name.empty() ? gpu : name != "cpu";
  if (name.empty() || name == "cpu") return device;
  device.sheet = find_device_sheet(name);
  core::require(device.sheet != nullptr || name == "cuda", ErrorKind::kUsage,
                "--device: expected cpu, {} or cuda, found \"{}\"; for a GPU that is not listed give --device cuda "
                "--gflops X --memory_gb Y",
                device_names(), name);
  if (device.sheet == nullptr) {
    core::require(gflops > 0.0 && memory_gb > 0.0, ErrorKind::kUsage,
                  "--device cuda is a GPU that you describe: also give --gflops and --memory_gb, or name one of {}",
                  device_names());
  } else if (memory_gb == 0.0) {
    device.memory_gb = device.sheet->memory_gb;
  }
  return device;
}

MicroStepTime gpu_micro_step(const model::MemorySetup& setup, const data::TokenStore& store, int64_t rows,
                             const StatedDevice& device) {
  // FLOPs are those of a CPU's step, whose GEMMs can be listed.
  model::MemorySetup listed = setup;
  listed.model.device.cuda = false;
  listed.model.compute_dtype = listed.frozen_dtype = model::Dtype::kFloat32;
  listed.packed_weights = false;
  const MicroStepWork work = micro_step_work(listed, store, rows);

  const DeviceSheet& measured = *find_device_sheet(kMeasuredOn);
  const DeviceSheet& sheet = device.sheet != nullptr ? *device.sheet : measured;
  const bool fp32 = setup.model.compute_dtype == model::Dtype::kFloat32;
  const double peak = 1e12 * sheet.tflops(setup.model.compute_dtype);
  const double gemm_rate = device.gflops > 0.0 ? 1e9 * device.gflops : kGemmShare * peak;
  // Without a data sheet, the device is taken for a smaller or larger H200.
  const double scale = device.sheet != nullptr ? 1.0 : gemm_rate / (kGemmShare * peak);

  const model::GptNeoConfig& config = setup.model.config;
  const auto count = [](int64_t a, int64_t b, int64_t c) {
    return static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c);
  };
  double bytes = kTrafficBytes * count(work.batch.tokens, config.hidden_size, config.num_layers);
  if (setup.model.head == model::Head::kCausalLm)
    bytes += kLogitBytes * count(work.batch.targets, config.vocab_size, 1);
  MicroStepTime time;
  time.tokens = static_cast<double>(work.batch.tokens);
  time.gemm_seconds = (work.gemm_flops + work.parameter_flops) / gemm_rate;
  time.rest_seconds = work.attention_flops / (kAttentionShare * peak * scale) +
                      (fp32 ? 2.0 : 1.0) * bytes / (1e9 * sheet.gigabytes_per_s * scale) +
                      kBlockSeconds * static_cast<double>(config.num_layers);
  if (setup.model.gradient_checkpointing) time.rest_seconds *= kRecompute;

  const std::string dtype = model::dtype_name(setup.model.compute_dtype);
  time.gemm_source =
      device.gflops > 0.0
          ? fmt::format("{:.0f} GFLOP/s, stated by --gflops", device.gflops)
          : fmt::format("{:.0f} TFLOP/s, assumed: {:.0f} % of the {} TFLOP/s in {} that the data sheet of {} states",
                        1e-12 * gemm_rate, 100.0 * kGemmShare, sheet.tflops(setup.model.compute_dtype), dtype,
                        sheet.product);
  time.rest_source = fmt::format(
      "assumed: memory traffic at the {:.0f} GB/s that {}, attention at {:.0f} % of the peak, {:.1f} ms to launch the "
      "kernels of a block",
      sheet.gigabytes_per_s * scale,
      device.sheet != nullptr ? "the data sheet states" : "an H200 would have at this --gflops",
      100.0 * kAttentionShare, 1e3 * kBlockSeconds);
  return time;
}

std::optional<MicroStepTime> cpu_micro_step(const model::MemorySetup& setup, const data::TokenStore& store,
                                            int64_t rows, const StatedDevice& device, const GemmRates& rates) {
  const auto stated = [&](const model::StepGemm&) { return std::optional(1e9 * device.gflops); };
  const std::optional<MicroStepLimit> limit =
      device.gflops > 0.0 ? micro_step_limit(setup, store, rows, stated) : known_limit(setup, store, rows, rates);
  if (!limit) return std::nullopt;
  MicroStepTime time;
  time.tokens = limit->tokens;
  time.gemm_seconds = limit->seconds;
  time.rest_seconds = cpu_step_seconds(limit->seconds) - limit->seconds;
  time.gemm_source = fmt::format("{:.1f} GFLOP/s a rank on average, {}", limit->flops / limit->seconds * 1e-9,
                                 device.gflops > 0.0 ? "stated by --gflops" : limit->rates);
  time.rest_source = fmt::format("assumed: {:.0f} % of the GEMMs, as steps on three CPUs took", 100.0 * kCpuRest);
  return time;
}

double tokens_of_epochs(const data::TokenStore& store, double epochs) {
  return std::accumulate(store.lengths().begin(), store.lengths().end(), 0.0) * epochs;
}

double cpu_step_seconds(double gemm_seconds) { return (1.0 + kCpuRest) * gemm_seconds; }

std::string readable_seconds(double seconds) {
  if (seconds < 100.0) return fmt::format("{:.1f} s", seconds);
  return seconds < 6000.0 ? fmt::format("{:.0f} min", seconds / 60.0) : fmt::format("{:.1f} h", seconds / 3600.0);
}

double all_reduce_seconds(int64_t bytes, int64_t ranks, const Network& network) {
  if (ranks <= 1) return 0.0;
  const double n = static_cast<double>(ranks);
  const double rounds = 2.0 * std::ceil(std::log2(n));
  return rounds * 1e-6 * network.latency_us +
         2.0 * (n - 1.0) / n * 8.0 * static_cast<double>(bytes) / (1e9 * network.link_gbps);
}

}  // namespace neoloom::launch
