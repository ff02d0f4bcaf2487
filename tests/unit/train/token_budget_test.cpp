// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/token_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "runtime/comm/collective_error.h"
#include "tests/support/fixed_store.h"

namespace neoloom::train {
namespace {

using ::testing::HasSubstr;

support::FixedStore store_of(size_t rows, size_t length) {
  return {std::vector<std::vector<int32_t>>(rows, std::vector<int32_t>(length, 7)), /*causal=*/true};
}

TEST(TokenBudgetUse, IsThatOfTheStepsOfAnEpoch) {
  const support::FixedStore store = store_of(100, 30);
  const BudgetUse use =
      measure_budget_use(store, {}, {.micro_batch_size = 8, .micro_batches_per_step = 4, .max_tokens = 200});
  EXPECT_DOUBLE_EQ(use.step_tokens, 32 * 30);
  EXPECT_DOUBLE_EQ(use.micro_batches, 6);  // of six samples each, and a rest of two
  EXPECT_DOUBLE_EQ(use.fill, 960.0 / 1200.0);
  EXPECT_EQ(use.longest, 30);
  EXPECT_EQ(describe(use), "about 6.0 micro-batches a step of at most 200 tokens, 80 % full");
  EXPECT_EQ(warning_of(use, 6), "");
  EXPECT_THAT(warning_of(use, 7), HasSubstr("some of the 7 ranks have nothing to do"));
}

TEST(TokenBudgetUse, NamesSamplesAboveTheLimit) {
  const support::FixedStore store = store_of(4, 30);
  const BudgetUse use =
      measure_budget_use(store, {}, {.micro_batch_size = 4, .micro_batches_per_step = 1, .max_tokens = 20});
  EXPECT_DOUBLE_EQ(use.micro_batches, 4);
  EXPECT_DOUBLE_EQ(use.fill, 1.0);
  EXPECT_THAT(warning_of(use, 1), HasSubstr("the longest sample has 30 tokens"));
}

TEST(IdleRanks, AreCountedWithWhatToChange) {
  const Batching batching{.micro_batch_size = 2, .micro_batches_per_step = 6};
  EXPECT_EQ(idle_ranks_warning(batching, 120, 6), "");
  EXPECT_EQ(idle_ranks_warning(batching, 120, 7),
            "a step has 6 micro-batches of 2, so 1 of the 7 ranks has nothing to do: use 6 ranks; or, for a new run, "
            "raise runtime.global_batch_size to 14 or lower trainer_config.per_device_train_batch_size to 1");
  EXPECT_EQ(
      idle_ranks_warning(batching, 120, 16),
      "a step has 6 micro-batches of 2, so 10 of the 16 ranks have nothing to do: use 6 ranks; or, for a new run, "
      "raise runtime.global_batch_size to 32");
}

TEST(IdleRanks, OfSmallDataAreNotHelpedByALargerBatch) {
  EXPECT_EQ(idle_ranks_warning({.micro_batch_size = 2, .micro_batches_per_step = 8}, 5, 4),
            "a step has 3 micro-batches of 2, and the data fill no more, so 1 of the 4 ranks has nothing to do: use 3 "
            "ranks; or, for a new run, lower trainer_config.per_device_train_batch_size to 1");
  EXPECT_EQ(idle_ranks_warning({.micro_batch_size = 1, .micro_batches_per_step = 2}, 1, 2),
            "a step has 1 micro-batch of 1, and the data fill no more, so 1 of the 2 ranks has nothing to do: use 1 "
            "rank");
}

TEST(SmallerMicroBatches, HaveHalfTheSamplesOrHalfTheTokensOfTheSameStep) {
  const support::FixedStore store = store_of(10, 30);
  const Batching samples = smaller_micro_batches({.micro_batch_size = 6, .micro_batches_per_step = 2}, store);
  EXPECT_EQ(samples.micro_batch_size, 3);
  EXPECT_EQ(samples.global_batch_size(), 12);
  Batching tokens =
      smaller_micro_batches({.micro_batch_size = 6, .micro_batches_per_step = 2, .max_tokens = 100}, store);
  EXPECT_EQ(tokens.max_tokens, 50);
  EXPECT_EQ(tokens.micro_batch_size, 6);
  tokens = smaller_micro_batches(tokens, store);
  EXPECT_EQ(tokens.max_tokens, 30) << "a sample cannot be cut";
  EXPECT_THROW(smaller_micro_batches(tokens, store), comm::CollectiveError);
  EXPECT_THROW(smaller_micro_batches({.micro_batch_size = 1, .micro_batches_per_step = 2}, store),
               comm::CollectiveError);
}

}  // namespace
}  // namespace neoloom::train
