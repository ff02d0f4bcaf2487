// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/micro_batch_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <thread>

#include "runtime/core/error.h"
#include "tests/support/fixed_store.h"

namespace neoloom::train {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kSteps = 6;  // two epochs of three steps: 4, 4 and 3 micro-batches

std::shared_ptr<const data::TokenStore> store() {
  std::vector<std::vector<int32_t>> rows;
  for (size_t length = 1; length <= 21; ++length) rows.emplace_back(length, 7);
  return std::make_shared<support::FixedStore>(rows, /*causal=*/false);
}

LoaderSetup setup(int rank = 0, int world_size = 1) {
  return {.store = store(),
          .step_options = {.micro_batch_size = 2, .micro_batches_per_step = 4},
          .rank = rank,
          .world_size = world_size,
          .total_steps = kSteps,
          .pack = [](const model::Batch&) { return nullptr; }};
}

std::vector<LoadedMicroBatch> all_of(const LoaderSetup& of) {
  const int64_t last = of.total_steps - 1;
  MicroBatchLoader loader(of);
  std::vector<LoadedMicroBatch> loaded;
  do {
    loaded.push_back(loader.next());
  } while (loaded.back().header.step < last || !loaded.back().last);
  return loaded;
}

using Steps = std::map<std::pair<int64_t, int64_t>, std::vector<int64_t>>;  // samples by (step, index)

Steps by_place(const std::vector<LoadedMicroBatch>& loaded) {
  Steps steps;
  for (const LoadedMicroBatch& one : loaded) {
    if (one.index >= 0) steps[{one.header.step, one.index}] = one.sample_ids;
  }
  return steps;
}

TEST(MicroBatchLoader, RanksTogetherHaveTheMicroBatchesOfOneRank) {
  const Steps alone = by_place(all_of(setup()));
  ASSERT_EQ(alone.size(), 22U);
  for (const int world : {2, 3, 5}) {
    Steps together;
    for (int rank = 0; rank < world; ++rank) {
      for (const auto& [place, samples] : by_place(all_of(setup(rank, world)))) {
        EXPECT_TRUE(together.emplace(place, samples).second) << "two ranks have the same micro-batch";
      }
    }
    EXPECT_EQ(together, alone) << world << " ranks";
  }
}

TEST(MicroBatchLoader, TheLastOfARankInAStepIsMarked) {
  for (const LoadedMicroBatch& one : all_of(setup(/*rank=*/1, /*world_size=*/2))) {
    const int64_t last_index = one.header.micro_batches == 4 ? 3 : 1;
    EXPECT_EQ(one.last, one.index == last_index) << "step " << one.header.step;
  }
}

TEST(MicroBatchLoader, ARankWithoutAMicroBatchLearnsOfTheStep) {
  const std::vector<LoadedMicroBatch> loaded = all_of(setup(/*rank=*/3, /*world_size=*/5));
  ASSERT_EQ(static_cast<int64_t>(loaded.size()), kSteps);
  EXPECT_THAT((std::vector<int64_t>{loaded[0].index, loaded[1].index, loaded[2].index}), ElementsAre(3, 3, -1));
  EXPECT_EQ(loaded[2].header.micro_batches, 3);
  EXPECT_EQ(loaded[2].header.target_weight, 21 - 16);
  EXPECT_TRUE(loaded[2].last);
  EXPECT_EQ(loaded[2].tokens(), 0);
}

TEST(MicroBatchLoader, AResumeBeginsWhereTheRunStood) {
  const Steps whole = by_place(all_of(setup()));
  LoaderSetup resumed = setup();
  resumed.first_step = 4;
  for (const auto& [place, samples] : by_place(all_of(resumed))) {
    EXPECT_GE(place.first, 4);
    EXPECT_EQ(samples, whole.at(place));
  }
}

TEST(MicroBatchLoader, PaddingIsCountedAndNotThere) {
  LoaderSetup of = setup();
  of.step_options.sampling = data::Sampling::kSequential;
  of.step_options.micro_batches_per_step = 1;
  of.total_steps = 1;
  const LoadedMicroBatch one = all_of(of).front();
  EXPECT_THAT(one.lengths, ElementsAre(1, 2));
  EXPECT_EQ(one.tokens(), 3);
  EXPECT_EQ(one.padded_tokens(), 4);
}

TEST(MicroBatchLoader, BatchesArePackedOnAThreadOfTheirOwn) {
  std::atomic<bool> elsewhere = false;
  LoaderSetup of = setup();
  of.pack = [&elsewhere, caller = std::this_thread::get_id()](const model::Batch& batch) {
    EXPECT_EQ(batch.cu_seqlens.back(), static_cast<int64_t>(batch.ids.size()));
    EXPECT_EQ(batch.targets.size(), batch.sample_ids.size());
    elsewhere = std::this_thread::get_id() != caller;
    return nullptr;
  };
  all_of(of);
  EXPECT_TRUE(elsewhere);
}

TEST(MicroBatchLoader, WhatPackingRefusesArrivesAtItsStep) {
  LoaderSetup of = setup();
  of.pack = [count = 0](const model::Batch&) mutable -> std::shared_ptr<const model::MicroBatch> {
    core::require(++count < 3, core::ErrorKind::kData, "sample 5 is bad");
    return nullptr;
  };
  MicroBatchLoader loader(of);
  loader.next();
  loader.next();
  EXPECT_THROW(loader.next(), core::Error);
}

}  // namespace
}  // namespace neoloom::train
