// SPDX-License-Identifier: Apache-2.0
#include "launch/planning/step_estimate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "runtime/core/error.h"
#include "tests/support/fixed_store.h"
#include "tests/support/scratch.h"

namespace neoloom::launch {
namespace {

/// A step that tests/bench/README.md measured on an H200, in bf16 with LoRA r=8 on q_proj and v_proj.
struct Measured {
  const char* name;
  int64_t hidden, blocks, heads;
  bool causal;
  int64_t samples, length;
  double tokens_per_s;
};
constexpr Measured kMeasured[] = {
    {"125M classification 32 x 128", 768, 12, 12, false, 32, 128, 545e3},
    {"125M causal LM 8 x 128", 768, 12, 12, true, 8, 128, 292e3},
    {"125M causal LM 16 x 1024", 768, 12, 12, true, 16, 1024, 463e3},
    {"1.3B causal LM 8 x 1024", 2048, 24, 16, true, 8, 1024, 77.4e3},
    {"2.7B causal LM 4 x 1024", 2560, 32, 20, true, 4, 1024, 40e3},
};

model::MemorySetup setup_of(const Measured& step) {
  model::MemorySetup setup;
  setup.model.head = step.causal ? model::Head::kCausalLm : model::Head::kSingleLabel;
  setup.model.num_labels = step.causal ? 0 : 2;
  setup.model.config.hidden_size = step.hidden;
  setup.model.config.num_layers = step.blocks;
  setup.model.config.num_heads = step.heads;
  setup.model.config.intermediate_size = 4 * step.hidden;
  for (int64_t block = 0; block < step.blocks; ++block) setup.model.config.layer_is_local.push_back(block % 2 == 1);
  setup.model.lora.emplace();
  setup.model.compute_dtype = setup.frozen_dtype = model::Dtype::kBFloat16;
  setup.model.device.cuda = true;
  setup.model.device.capability_major = 9;
  return setup;
}

support::FixedStore store_of(const Measured& step) {
  return {
      {std::vector<int32_t>(static_cast<size_t>(step.length)), std::vector<int32_t>(static_cast<size_t>(step.length))},
      step.causal};
}

double seconds_of(const MicroStepTime& time) { return time.gemm_seconds + time.rest_seconds; }

MicroStepTime estimate(const Measured& step, const StatedDevice& device) {
  return gpu_micro_step(setup_of(step), store_of(step), step.samples, device);
}

TEST(GpuMicroStep, MeetsTheMeasuredStepsOfAnH200) {
  const StatedDevice h200 = stated_device("h200", 0, 0, false);
  for (const Measured& step : kMeasured) {
    const MicroStepTime time = estimate(step, h200);
    const double expected = time.tokens / step.tokens_per_s;
    EXPECT_NEAR(seconds_of(time) / expected, 1.0, 0.15)
        << step.name << ": " << 1e3 * time.gemm_seconds << " + " << 1e3 * time.rest_seconds << " ms, measured "
        << 1e3 * expected;
  }
  const MicroStepTime large = estimate(kMeasured[3], h200);
  EXPECT_NEAR(1e3 * large.gemm_seconds, 67.0, 3.0) << "of 106 ms, as the page says";
  EXPECT_THAT(large.gemm_source, testing::HasSubstr("64 % of the 989 TFLOP/s in bfloat16 that the data sheet of"));
}

TEST(GpuMicroStep, ScalesWithTheDataSheet) {
  const Measured& step = kMeasured[3];
  const MicroStepTime h200 = estimate(step, stated_device("h200", 0, 0, false));
  const MicroStepTime a100 = estimate(step, stated_device("A100-80", 0, 0, false));
  EXPECT_DOUBLE_EQ(a100.gemm_seconds / h200.gemm_seconds, 989.0 / 312.0);
  EXPECT_GT(a100.rest_seconds, 2.0 * h200.rest_seconds);
  const MicroStepTime same = estimate(step, stated_device("cuda", 0.64 * 989e3, 141, false));
  EXPECT_DOUBLE_EQ(same.gemm_seconds, h200.gemm_seconds);
  EXPECT_DOUBLE_EQ(same.rest_seconds, h200.rest_seconds);
  EXPECT_THAT(same.gemm_source, testing::EndsWith("GFLOP/s, stated by --gflops"));
}

TEST(GpuMicroStep, TakesLongerWhenItRecomputesOrComputesInFp32) {
  const StatedDevice device = stated_device("h100", 0, 0, false);
  const Measured& step = kMeasured[0];
  const MicroStepTime plain = estimate(step, device);
  model::MemorySetup setup = setup_of(step);
  setup.model.gradient_checkpointing = true;
  const MicroStepTime recomputes = gpu_micro_step(setup, store_of(step), step.samples, device);
  EXPECT_NEAR(seconds_of(recomputes) / seconds_of(plain), 4.0 / 3.0, 0.15);
  setup = setup_of(step);
  setup.model.compute_dtype = model::Dtype::kFloat32;
  EXPECT_DOUBLE_EQ(gpu_micro_step(setup, store_of(step), step.samples, device).gemm_seconds,
                   plain.gemm_seconds * 989.0 / 67.0);
}

std::string refusal(const std::string& name, double gflops, double memory_gb) {
  try {
    stated_device(name, gflops, memory_gb, false);
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kUsage);
    return error.what();
  }
  return "";
}

TEST(StatedDevice, IsOfTheTableOrDescribed) {
  for (const DeviceSheet& sheet : device_sheets()) {
    const StatedDevice device = stated_device(sheet.name, 0, 0, false);
    EXPECT_TRUE(device.gpu);
    EXPECT_EQ(device.memory_gb, sheet.memory_gb);
    EXPECT_THAT(refusal("h800", 0, 0), testing::HasSubstr(sheet.name));
  }
  EXPECT_EQ(stated_device("h100", 0, 20, false).memory_gb, 20) << "a part of a GPU";
  EXPECT_FALSE(stated_device("cpu", 0, 0, true).gpu);
  EXPECT_TRUE(stated_device("", 0, 0, true).gpu);
  EXPECT_THAT(refusal("cuda", 1000, 0), testing::HasSubstr("also give --gflops and --memory_gb"));
}

TEST(CpuMicroStep, HasTheStatedRateOrIsUnknown) {
  const ScratchFolder folder;
  const GemmRates none{core::Cache(folder.path())};
  model::MemorySetup setup = setup_of(kMeasured[0]);
  setup.model.device = {};
  setup.model.compute_dtype = setup.frozen_dtype = model::Dtype::kFloat32;
  const support::FixedStore store = store_of(kMeasured[0]);
  EXPECT_FALSE(cpu_micro_step(setup, store, 4, {}, none));
  StatedDevice device;
  device.gflops = 100;
  const auto once = cpu_micro_step(setup, store, 4, device, none);
  ASSERT_TRUE(once);
  EXPECT_THAT(once->gemm_source, testing::StrEq("100.0 GFLOP/s a rank on average, stated by --gflops"));
  device.gflops = 200;
  EXPECT_DOUBLE_EQ(cpu_micro_step(setup, store, 4, device, none)->gemm_seconds, once->gemm_seconds / 2);
}

TEST(AllReduce, TakesTwoTimesTheBytesOverTheLinkAndALatencyARound) {
  const Network network{.link_gbps = 8.0, .latency_us = 1000.0};  // 1 GB/s, 1 ms
  EXPECT_EQ(all_reduce_seconds(1'000'000, 1, network), 0.0);
  EXPECT_DOUBLE_EQ(all_reduce_seconds(1'000'000, 2, network), 2 * 1e-3 + 1e-3);
  EXPECT_DOUBLE_EQ(all_reduce_seconds(1'000'000, 8, network), 6 * 1e-3 + 1.75e-3);
  EXPECT_NEAR(all_reduce_seconds(1'000'000, 512, network), 18 * 1e-3 + 2e-3, 1e-5);
}

}  // namespace
}  // namespace neoloom::launch
