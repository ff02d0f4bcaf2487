// SPDX-License-Identifier: Apache-2.0
#include "launch/planning/step_limit.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/fixed_store.h"
#include "tests/support/scratch.h"

namespace neoloom::launch {
namespace {

constexpr double kRows = 4.0;  // samples of a micro-batch
constexpr double kTokens = kRows * 20.0;
constexpr double kTargets = kRows * 19.0;
constexpr double kHidden = 64.0, kInner = 256.0, kVocabulary = 128.0, kBlocks = 2.0, kRank = 8.0;
constexpr double kSquare = kHidden * kHidden, kMlp = 2.0 * kHidden * kInner;  // elements of q_proj, and of an MLP

/// Samples of 10 and 30 tokens.
support::FixedStore store_of(bool causal) { return {{std::vector<int32_t>(10), std::vector<int32_t>(30)}, causal}; }

model::MemorySetup setup_of(model::Head head) {
  model::MemorySetup setup;
  setup.model.head = head;
  setup.model.num_labels = head == model::Head::kCausalLm ? 0 : 2;
  setup.model.config.hidden_size = 64;
  setup.model.config.num_heads = 4;
  setup.model.config.num_layers = 2;
  setup.model.config.intermediate_size = 256;
  setup.model.config.vocab_size = 128;
  setup.model.config.layer_is_local = {false, false};
  setup.model.lora.emplace();
  return setup;
}

std::optional<MicroStepLimit> limit_of(const model::MemorySetup& setup, const RateOf& rate_of) {
  return micro_step_limit(setup, store_of(setup.model.head == model::Head::kCausalLm), 4, rate_of);
}

// Backward goes through all of the upper block, and in the lower one, below which nothing trains, not through q, k, v.
double forward_flops() { return 2 * kTokens * kBlocks * (4 * kSquare + kMlp) + 2 * kTargets * kHidden * kVocabulary; }
double backward_flops() {
  return 2 * kTokens * (4 * kSquare + kMlp + kSquare + kMlp) + 2 * kTargets * kHidden * kVocabulary;
}
// Each token sees itself and those before it; scores and sums, forward and twice backward.
double attention_flops() {
  const double seen = (10 * 11 + 30 * 31) / 2.0 / 2.0;  // pairs of a sample
  return kRows * seen * kBlocks * 3 * 4 * kHidden;
}

TEST(MicroStepLimit, IsTheFlopsOfRealTokensOverTheirRate) {
  const auto limit = limit_of(setup_of(model::Head::kCausalLm), [](const auto&) { return 1e9; });
  ASSERT_TRUE(limit);
  const double lora = 6 * kTokens * kBlocks * 2 * 2 * kRank * kHidden;  // A and B of q_proj and v_proj
  const double flops = forward_flops() + backward_flops() + attention_flops() + lora;
  EXPECT_DOUBLE_EQ(limit->flops, flops);
  EXPECT_DOUBLE_EQ(limit->seconds, flops / 1e9);
  EXPECT_DOUBLE_EQ(limit->seconds_per_token(), flops / 1e9 / kTokens);
}

TEST(MicroStepLimit, CountsWhatIsNotMeasuredAtTheMeanRate) {
  const auto limit =
      limit_of(setup_of(model::Head::kCausalLm), [](const model::StepGemm& gemm) { return gemm.backward ? 2e9 : 1e9; });
  ASSERT_TRUE(limit);
  const double gemms = forward_flops() + backward_flops();
  const double seconds = forward_flops() / 1e9 + backward_flops() / 2e9;
  EXPECT_DOUBLE_EQ(limit->seconds, seconds * limit->flops / gemms);
}

TEST(MicroStepLimit, AddsTheGradientsOfMatricesThatAreTrained) {
  model::MemorySetup setup = setup_of(model::Head::kCausalLm);
  setup.model.lora.reset();
  setup.frozen_dtype = model::Dtype::kFloat32;
  for (const bool checkpointing : {false, true}) {
    setup.model.gradient_checkpointing = checkpointing;
    double gemms = 0.0;
    const auto limit = limit_of(setup, [&](const model::StepGemm& gemm) {
      gemms += static_cast<double>(gemm.count) * gemm.flops();
      return 1e9;
    });
    ASSERT_TRUE(limit);
    EXPECT_DOUBLE_EQ(limit->flops, gemms + attention_flops() + forward_flops());
  }
}

TEST(MicroStepLimit, IsUnknownWithoutTheRateOfALargeShape) {
  const auto limit_without = [](int64_t rows) {
    return limit_of(setup_of(model::Head::kSingleLabel), [rows](const model::StepGemm& gemm) {
      return gemm.rows == rows ? std::nullopt : std::optional(1e9);
    });
  };
  EXPECT_FALSE(limit_without(80));
  EXPECT_TRUE(limit_without(4)) << "the last tokens of a classifier have few FLOPs";
}

TEST(KnownLimit, NamesTheProcessorTheThreadsAndTheOldestDay) {
  const ScratchFolder folder;
  const core::Cache cache(folder.path());
  GemmRates rates(cache);
  model::MemorySetup setup = setup_of(model::Head::kCausalLm);
  setup.threads = 3;
  const support::FixedStore store = store_of(true);
  EXPECT_FALSE(known_limit(setup, store, 4, rates));
  limit_of(setup, [&](const model::StepGemm& gemm) {
    rates.set(setup, gemm, {1.0, gemm.backward ? "2026-11-27" : "2026-11-28"});
    return 1e9;
  });
  rates.save();
  const auto limit = known_limit(setup, store, 4, GemmRates(cache));
  ASSERT_TRUE(limit);
  EXPECT_DOUBLE_EQ(limit->seconds, limit->flops / 1e9);
  EXPECT_THAT(limit->rates, ::testing::MatchesRegex("measured 2026-11-27 on .+ with 3 threads"));
  EXPECT_FALSE(known_limit(setup, store, 64, rates)) << "no rates for so many rows";
  setup.model.device.cuda = true;
  EXPECT_FALSE(known_limit(setup, store, 4, rates));
}

}  // namespace
}  // namespace neoloom::launch
