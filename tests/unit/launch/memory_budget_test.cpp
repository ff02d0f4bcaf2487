// SPDX-License-Identifier: Apache-2.0
#include "launch/planning/memory_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "runtime/metrics/text_width.h"
#include "tests/support/fixed_store.h"

namespace neoloom::launch {
namespace {

using ::testing::HasSubstr;
using train::AutoFlag;

/// Returns a store of texts of these lengths.
support::FixedStore rows_of(const std::vector<size_t>& lengths) {
  std::vector<std::vector<int32_t>> rows;
  rows.reserve(lengths.size());
  for (const size_t length : lengths) rows.emplace_back(length);
  return {std::move(rows), /*causal=*/true};
}

class RankMemoryTest : public ::testing::Test {
 protected:
  RankMemoryTest() {
    RunConfig config;
    config.peft_config.emplace();
    Base base;
    base.config.hidden_size = 768;
    base.config.num_heads = 12;
    base.config.num_layers = 12;
    base.config.intermediate_size = 3072;
    base.config.layer_is_local.assign(12, false);
    question_ = memory_plan_input(config, TaskChoice{}, base, store_, {}, {});
    question_.batching = {8, 1};
  }

  int64_t total(bool gradient_checkpointing) const {
    return rank_memory(question_, gradient_checkpointing).total_bytes;
  }

  support::FixedStore store_ = rows_of(std::vector<size_t>(100, 512));
  MemoryPlanInput question_;
};

TEST(LargestBatch, IsMadeOfTheLongestSamples) {
  const support::FixedStore store = rows_of({5, 100, 7, 80, 3});
  const model::BatchShape two = largest_batch(store, 2);
  EXPECT_EQ(two.samples, 2);
  EXPECT_EQ(two.tokens, 180);
  EXPECT_EQ(two.longest, 100);
  EXPECT_EQ(two.targets, 178);
  EXPECT_EQ(largest_batch(store, 50).samples, 5);
}

TEST(LargestBatch, OfATokenBudgetHasAsManyTokensOrTheLongestSample) {
  const support::FixedStore store = rows_of({5, 100, 7, 80, 3});
  const model::BatchShape some = largest_batch(store, /*rows=*/4, /*max_tokens=*/120);
  EXPECT_EQ(some.tokens, 120);
  EXPECT_EQ(some.longest, 100);
  EXPECT_EQ(some.samples, 4) << "95 tokens; the fifth would make it more than 120";
  EXPECT_LE(some.targets, 120);
  EXPECT_EQ(largest_batch(store, 4, 15).tokens, 100) << "a longer sample is a micro-batch of its own";
  EXPECT_EQ(largest_batch(store, 4, 15).samples, 3);
  EXPECT_EQ(largest_batch(store, 2, 1000).tokens, 180) << "a step has no more samples";
}

TEST_F(RankMemoryTest, ARefusalNamesTheTokensThatWouldFit) {
  question_.batching = {8, 4, 2048};
  const int64_t budget = total(true);
  question_.batching.max_tokens = 8192;
  const MemoryDecision decision = decide_memory(question_, AutoFlag::kAuto, budget);
  ASSERT_FALSE(decision.fits);
  EXPECT_EQ(decision.memory.batch.tokens, 8192);
  EXPECT_THAT(does_not_fit(question_, decision, budget), HasSubstr("max_tokens_per_micro_batch 2048 would fit"));
}

TEST_F(RankMemoryTest, CheckpointingIsChosenOnlyWhereTheBudgetAsksForIt) {
  ASSERT_LT(total(true), total(false));
  const MemoryDecision large = decide_memory(question_, AutoFlag::kAuto, total(false));
  EXPECT_TRUE(large.fits);
  EXPECT_FALSE(large.gradient_checkpointing);
  const MemoryDecision small = decide_memory(question_, AutoFlag::kAuto, total(false) - 1);
  EXPECT_TRUE(small.fits);
  EXPECT_TRUE(small.gradient_checkpointing);
  EXPECT_EQ(small.memory.total_bytes, total(true));
  EXPECT_FALSE(decide_memory(question_, AutoFlag::kAuto, total(true) - 1).fits);
}

TEST_F(RankMemoryTest, AnUnknownBudgetHoldsEverything) {
  const MemoryDecision decision = decide_memory(question_, AutoFlag::kAuto, 0);
  EXPECT_TRUE(decision.fits);
  EXPECT_FALSE(decision.gradient_checkpointing);
}

TEST_F(RankMemoryTest, WhatTheConfigurationSaysIsNotChangedToFit) {
  EXPECT_TRUE(decide_memory(question_, AutoFlag::kTrue, total(false)).gradient_checkpointing);
  const MemoryDecision off = decide_memory(question_, AutoFlag::kFalse, total(true));
  EXPECT_FALSE(off.gradient_checkpointing);
  EXPECT_FALSE(off.fits);
  EXPECT_THAT(does_not_fit(question_, off, total(true)), HasSubstr("gradient_checkpointing: auto or true would need"));
}

TEST_F(RankMemoryTest, ARefusalNamesTheBatchThatWouldFit) {
  question_.batching.micro_batch_size = 3;
  const int64_t budget = total(true);
  question_.batching.micro_batch_size = 8;
  const MemoryDecision decision = decide_memory(question_, AutoFlag::kAuto, budget);
  ASSERT_FALSE(decision.fits);
  const std::string text = does_not_fit(question_, decision, budget);
  EXPECT_THAT(text, HasSubstr("per_device_train_batch_size 3 would fit"));
  EXPECT_THAT(text, HasSubstr(metrics::memory_text(budget)));
  EXPECT_THAT(text, HasSubstr(metrics::memory_text(decision.memory.total_bytes)));
}

TEST_F(RankMemoryTest, TheLargestMicroBatchIsTheLastThatFits) {
  const auto total_of = [&](int64_t samples, int64_t tokens) {
    question_.batching = {.micro_batch_size = samples, .micro_batches_per_step = 10, .max_tokens = tokens};
    return total(true);
  };
  const int64_t budget = total_of(37, 0);
  EXPECT_EQ(largest_micro_batch(question_, true, budget), 37);
  EXPECT_EQ(largest_micro_batch(question_, true, total_of(1, 0) - 1), 0);
  EXPECT_EQ(largest_micro_batch(question_, true, total_of(100, 0)), 100) << "there are no more samples";
  const int64_t of_tokens = total_of(8, 5'000);
  const int64_t tokens = largest_micro_batch(question_, true, of_tokens);
  EXPECT_LE(total_of(8, tokens), of_tokens);
  EXPECT_GT(total_of(8, tokens + 1), of_tokens);
}

TEST_F(RankMemoryTest, RanksOfANodeShareTheMappedWeights) {
  const RankMemory alone = rank_memory(question_, false);
  question_.ranks_per_node = 4;
  const RankMemory shared = rank_memory(question_, false);
  EXPECT_EQ(alone.weight_share_bytes, alone.weights.read_bytes);
  EXPECT_EQ(shared.weight_share_bytes, alone.weights.read_bytes / 4);
  EXPECT_EQ(alone.total_bytes - shared.total_bytes, alone.weight_share_bytes - shared.weight_share_bytes);
}

TEST_F(RankMemoryTest, OnAGpuOnlyItsOwnMemoryCounts) {
  question_.process_bytes = 1 << 30;
  question_.setup.model.device.cuda = true;
  question_.setup.model.device.capability_major = 9;
  question_.setup.model.compute_dtype = model::Dtype::kFloat16;
  question_.setup.packed_weights = false;
  const RankMemory memory = rank_memory(question_, false);
  // GPT-Neo 125M in fp16 with the tied head once, and 47 more rows, which make its vocabulary of 50257 a multiple of
  // 64.
  const model::GptNeoConfig& config = question_.setup.model.config;
  EXPECT_EQ(memory.weights.private_bytes, 2 * (config.body_parameters() + 47 * config.hidden_size));
  EXPECT_EQ(memory.total_bytes, memory.weights.private_bytes + memory.state.total_bytes() + memory.step.peak_bytes);
}

}  // namespace
}  // namespace neoloom::launch
