// SPDX-License-Identifier: Apache-2.0
#include "data/batching/step_list.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using testing::ElementsAre;

struct Samples {
  explicit Samples(int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      lengths.push_back(static_cast<int32_t>(1 + (i * 7919) % 97));
      targets.push_back(static_cast<int32_t>(i % 5));
    }
  }
  std::vector<int32_t> lengths;
  std::vector<int32_t> targets;
};

std::vector<int64_t> epoch_of(StepList& list, int64_t epoch) {
  std::vector<int64_t> ids;
  for (int64_t step = 0; step < list.steps_per_epoch(); ++step) {
    for (const auto& batch : list.step(epoch, step).micro_batches) ids.insert(ids.end(), batch.begin(), batch.end());
  }
  return ids;
}

TEST(SeededPermutation, IsTheOneOfTorchRandperm) {
  // torch.randperm(10, generator=torch.Generator().manual_seed(seed)) of torch 2.11
  EXPECT_THAT(seeded_permutation(10, 42), ElementsAre(2, 6, 1, 8, 4, 5, 0, 9, 3, 7));
  EXPECT_THAT(seeded_permutation(10, 43), ElementsAre(8, 4, 9, 0, 5, 1, 6, 7, 2, 3));
  EXPECT_THAT(seeded_permutation(1, 42), ElementsAre(0));
  EXPECT_TRUE(seeded_permutation(0, 42).empty());
}

class Sampled : public testing::TestWithParam<Sampling> {};
INSTANTIATE_TEST_SUITE_P(All, Sampled,
                         testing::Values(Sampling::kRandom, Sampling::kSequential, Sampling::kGroupByLength));

TEST_P(Sampled, EveryEpochHoldsEverySampleOnce) {
  for (const int64_t n : {1, 2, 11, 12, 13, 1000}) {
    const Samples samples(n);
    StepList list(samples.lengths, samples.targets,
                  {.micro_batch_size = 3, .micro_batches_per_step = 4, .sampling = GetParam()});
    for (int64_t epoch = 0; epoch < 2; ++epoch) {
      std::vector<int64_t> ids = epoch_of(list, epoch);
      std::sort(ids.begin(), ids.end());
      std::vector<int64_t> all(static_cast<size_t>(n));
      std::iota(all.begin(), all.end(), 0);
      EXPECT_EQ(ids, all);
    }
  }
}

TEST_P(Sampled, RaggedRestMakesASmallerLastStep) {
  const Samples samples(29);  // two steps of 12, then 2 + 2 + 1
  StepList list(samples.lengths, samples.targets,
                {.micro_batch_size = 2, .micro_batches_per_step = 6, .sampling = GetParam()});
  ASSERT_EQ(list.steps_per_epoch(), 3);
  EXPECT_EQ(list.step(0, 0).micro_batches.size(), 6U);
  const Step last = list.step(0, 2);
  ASSERT_EQ(last.micro_batches.size(), 3U);
  EXPECT_EQ(last.micro_batches[1].size(), 2U);
  EXPECT_EQ(last.micro_batches[2].size(), 1U);
  EXPECT_EQ(last.samples, 5);
}

TEST_P(Sampled, DroppingTheRestLeavesFullStepsOnly) {
  const Samples samples(29);
  StepList list(samples.lengths, samples.targets,
                {.micro_batch_size = 2, .micro_batches_per_step = 6, .sampling = GetParam(), .drop_last = true});
  ASSERT_EQ(list.steps_per_epoch(), 2);
  const std::vector<int64_t> ids = epoch_of(list, 0);
  EXPECT_EQ(std::set<int64_t>(ids.begin(), ids.end()).size(), 24U);
}

TEST_P(Sampled, CountsTheTargetsOfAStep) {
  const Samples samples(20);
  StepList list(samples.lengths, samples.targets,
                {.micro_batch_size = 4, .micro_batches_per_step = 2, .sampling = GetParam()});
  const Step step = list.step(1, 1);
  int64_t expected = 0;
  for (const auto& batch : step.micro_batches) {
    for (const int64_t id : batch) expected += samples.targets[id];
  }
  EXPECT_EQ(step.target_weight, expected);
  EXPECT_EQ(step.samples, 8);
}

TEST_P(Sampled, AnyStepCanBeAskedForInAnyOrder) {
  const Samples samples(100);
  const StepListOptions options{.micro_batch_size = 3, .micro_batches_per_step = 2, .sampling = GetParam()};
  StepList forward(samples.lengths, samples.targets, options);
  const std::vector<int64_t> first = epoch_of(forward, 0);
  epoch_of(forward, 1);
  StepList backward(samples.lengths, samples.targets, options);
  backward.step(1, 5);
  EXPECT_EQ(backward.step(0, 7).micro_batches, forward.step(0, 7).micro_batches);
  EXPECT_EQ(epoch_of(backward, 0), first);
}

TEST(StepLists, RandomOrderIsThePermutationOfSeedPlusEpoch) {
  const Samples samples(37);
  StepList list(samples.lengths, samples.targets, {.seed = 5, .micro_batch_size = 4});
  EXPECT_EQ(epoch_of(list, 3), seeded_permutation(37, 8));
  EXPECT_NE(epoch_of(list, 0), epoch_of(list, 1));
}

TEST(StepLists, SequentialOrderIsTheFiles) {
  const Samples samples(5);
  StepList list(samples.lengths, samples.targets, {.micro_batch_size = 2, .sampling = Sampling::kSequential});
  EXPECT_THAT(epoch_of(list, 4), ElementsAre(0, 1, 2, 3, 4));
}

TEST(StepLists, SamplesOfAStepDoNotDependOnHowItIsCut) {
  const Samples samples(50);
  const auto samples_of = [&](Sampling sampling, int64_t size, int64_t count, int64_t epoch, int64_t step) {
    StepList list(samples.lengths, samples.targets,
                  {.micro_batch_size = size, .micro_batches_per_step = count, .sampling = sampling});
    std::vector<int64_t> ids;
    for (const auto& batch : list.step(epoch, step).micro_batches) ids.insert(ids.end(), batch.begin(), batch.end());
    if (sampling != Sampling::kGroupByLength) std::sort(ids.begin(), ids.end());  // dealt anew
    return ids;
  };
  for (const Sampling sampling : {Sampling::kRandom, Sampling::kGroupByLength}) {
    for (int64_t step = 0; step < 5; ++step) {
      const std::vector<int64_t> whole = samples_of(sampling, 12, 1, 1, step);
      EXPECT_EQ(samples_of(sampling, 1, 12, 1, step), whole);
      EXPECT_EQ(samples_of(sampling, 4, 3, 1, step), whole);
    }
  }
}

TEST(StepLists, MicroBatchesOfAStepHaveAboutAsManyTokens) {
  const Samples samples(1200);
  StepList list(samples.lengths, samples.targets, {.micro_batch_size = 4, .micro_batches_per_step = 4});
  double largest = 0;  // over the mean of a step's micro-batches: what ranks lose by waiting
  for (int64_t step = 0; step < list.steps_per_epoch(); ++step) {
    std::vector<int64_t> tokens;
    for (const auto& batch : list.step(0, step).micro_batches) {
      EXPECT_EQ(batch.size(), 4U);
      tokens.push_back(0);
      for (const int64_t id : batch) tokens.back() += samples.lengths[id];
    }
    const double mean = static_cast<double>(std::accumulate(tokens.begin(), tokens.end(), int64_t{0})) / 4;
    largest += static_cast<double>(*std::max_element(tokens.begin(), tokens.end())) / mean;
  }
  EXPECT_LT(largest / static_cast<double>(list.steps_per_epoch()), 1.05);  // 1.3 without balancing
}

/// Lengths of chat messages or reviews: many short ones, a long tail, cut at 512 tokens.
std::vector<int32_t> log_normal_lengths(size_t count) {
  std::mt19937 generator(7);
  std::lognormal_distribution<double> length(4.5, 0.8);
  std::vector<int32_t> lengths;
  while (lengths.size() < count) {
    lengths.push_back(std::clamp(static_cast<int32_t>(length(generator)), 1, 512));
  }
  return lengths;
}

int64_t tokens_of(const std::vector<int64_t>& batch, const std::vector<int32_t>& lengths) {
  int64_t tokens = 0;
  for (const int64_t sample : batch) tokens += std::max(1, lengths[static_cast<size_t>(sample)]);
  return tokens;
}

TEST_P(Sampled, AMicroBatchHasAtMostTheTokensOfTheBudget) {
  const std::vector<int32_t> lengths = log_normal_lengths(3000);
  constexpr int64_t kMost = 1024;
  StepList list(lengths, lengths,
                {.micro_batch_size = 8, .micro_batches_per_step = 16, .sampling = GetParam(), .max_tokens = kMost});
  StepList plain(lengths, lengths, {.micro_batch_size = 8, .micro_batches_per_step = 16, .sampling = GetParam()});
  ASSERT_EQ(list.steps_per_epoch(), plain.steps_per_epoch());
  for (int64_t step = 0; step < list.steps_per_epoch(); ++step) {
    const Step found = list.step(1, step);
    const Step expected = plain.step(1, step);
    EXPECT_EQ(found.samples, expected.samples);
    EXPECT_EQ(found.target_weight, expected.target_weight);
    std::multiset<int64_t> samples;
    int64_t tokens = 0;
    for (const auto& batch : found.micro_batches) {
      EXPECT_LE(tokens_of(batch, lengths), kMost);
      tokens += tokens_of(batch, lengths);
      samples.insert(batch.begin(), batch.end());
    }
    std::multiset<int64_t> same;
    for (const auto& batch : expected.micro_batches) same.insert(batch.begin(), batch.end());
    EXPECT_EQ(samples, same);
    // Samples of like length may not fill a micro-batch.
    if (GetParam() != Sampling::kGroupByLength) {
      EXPECT_LE(std::ssize(found.micro_batches), (tokens + kMost - 1) / kMost + 1);
    }
  }
}

TEST(TokenBudget, IsFilledToNineteenTwentiethsWhereAStepHasManyMicroBatches) {
  const std::vector<int32_t> lengths = log_normal_lengths(20000);
  StepList list(lengths, lengths, {.micro_batch_size = 32, .micro_batches_per_step = 16, .max_tokens = 2048});
  double tokens = 0;
  double budget = 0;
  double largest = 0;  // over the mean of a step's micro-batches
  const int64_t steps = list.steps_per_epoch() - 1;
  for (int64_t step = 0; step < steps; ++step) {
    const Step found = list.step(0, step);
    std::vector<int64_t> each;
    for (const auto& batch : found.micro_batches) each.push_back(tokens_of(batch, lengths));
    const auto sum = static_cast<double>(std::accumulate(each.begin(), each.end(), int64_t{0}));
    tokens += sum;
    budget += 2048.0 * static_cast<double>(each.size());
    largest +=
        static_cast<double>(*std::max_element(each.begin(), each.end())) * static_cast<double>(each.size()) / sum;
  }
  EXPECT_GT(tokens / budget, 0.95);
  EXPECT_LT(largest / static_cast<double>(steps), 1.05);
}

TEST(TokenBudget, ALongerSampleIsAMicroBatchOfItsOwn) {
  const std::vector<int32_t> lengths = {5, 40, 0, 6, 31, 5};  // an empty sample takes the place of one token
  StepList list(lengths, lengths, {.micro_batch_size = 6, .sampling = Sampling::kSequential, .max_tokens = 10});
  EXPECT_THAT(list.step(0, 0).micro_batches,
              testing::UnorderedElementsAre(ElementsAre(1), ElementsAre(4), ElementsAre(0, 5), ElementsAre(2, 3)));
}

TEST(TokenBudget, TakesFirstFitWhereEqualShareWouldNotFit) {
  // First-fit decreasing: 6 4 | 5 3 2. The sample with the fewest tokens so far would take 6 3 | 5 4, and 2 fits
  // nowhere.
  const std::vector<int32_t> lengths = {6, 5, 4, 3, 2};
  StepList list(lengths, lengths, {.micro_batch_size = 5, .sampling = Sampling::kSequential, .max_tokens = 10});
  EXPECT_THAT(list.step(0, 0).micro_batches, ElementsAre(ElementsAre(0, 2), ElementsAre(1, 3, 4)));
}

TEST(TokenBudget, PacksStayTogether) {
  const std::vector<int32_t> lengths = {3, 4, 6, 2, 2, 9};
  const std::vector<int64_t> packs = {0, 2, 3, 5, 6};  // 7, 6, 4, 9 tokens
  StepList list(lengths, lengths, {.micro_batch_size = 4, .sampling = Sampling::kSequential, .max_tokens = 11}, {},
                packs);
  EXPECT_THAT(list.step(0, 0).micro_batches,
              testing::UnorderedElementsAre(ElementsAre(5), ElementsAre(0, 1), ElementsAre(2, 3, 4)));
}

TEST(StepLists, SamplesOfEqualLengthStayInTheOrderOfTheEpoch) {
  const std::vector<int32_t> lengths(24, 7);
  StepList list(lengths, lengths,
                {.micro_batch_size = 3, .micro_batches_per_step = 2, .sampling = Sampling::kSequential});
  for (const auto& batch : list.step(0, 1).micro_batches) EXPECT_TRUE(std::is_sorted(batch.begin(), batch.end()));
}

TEST(GroupingByLength, PadsFarLessThanRandomOrder) {
  const Samples samples(4000);
  const auto padding = [&](Sampling sampling) {
    StepList list(samples.lengths, samples.targets, {.micro_batch_size = 8, .sampling = sampling});
    int64_t real = 0;
    int64_t padded = 0;
    for (int64_t step = 0; step < list.steps_per_epoch(); ++step) {
      for (const auto& batch : list.step(0, step).micro_batches) {
        int64_t longest = 0;
        for (const int64_t id : batch) {
          real += samples.lengths[id];
          longest = std::max<int64_t>(longest, samples.lengths[id]);
        }
        padded += longest * static_cast<int64_t>(batch.size());
      }
    }
    return 1.0 - static_cast<double>(real) / static_cast<double>(padded);
  };
  EXPECT_LT(padding(Sampling::kGroupByLength), 0.05);
  EXPECT_GT(padding(Sampling::kRandom), 0.3);
}

TEST(GroupingByLength, LongestSampleComesFirstAndEpochsDiffer) {
  const Samples samples(1000);
  StepList list(samples.lengths, samples.targets, {.micro_batch_size = 8, .sampling = Sampling::kGroupByLength});
  const int32_t longest = *std::max_element(samples.lengths.begin(), samples.lengths.end());
  EXPECT_EQ(samples.lengths[list.step(0, 0).micro_batches[0][0]], longest);
  EXPECT_NE(epoch_of(list, 0), epoch_of(list, 1));
}

TEST(GroupingByLength, BatchesAreNotSortedWithinAMegaBatch) {
  const Samples samples(1600);  // four mega-batches of 50 batches of 8
  StepList list(samples.lengths, samples.targets, {.micro_batch_size = 8, .sampling = Sampling::kGroupByLength});
  int rises = 0;
  int32_t before = 0;
  for (int64_t step = 0; step < list.steps_per_epoch(); ++step) {
    const int32_t now = samples.lengths[list.step(0, step).micro_batches[0][0]];
    rises += now > before ? 1 : 0;
    before = now;
  }
  EXPECT_GT(rises, 60);  // sorted mega-batches would rise four times
}

TEST(StepLists, ImpossibleListsAreRefused) {
  const Samples samples(5);
  expect_error(
      [&] {
        StepList(samples.lengths, samples.targets,
                 {.micro_batch_size = 3, .micro_batches_per_step = 2, .drop_last = true});
      },
      core::ErrorKind::kUsage, {"drop_last", "5 samples"});
  expect_error([&] { StepList({}, {}, {}); }, core::ErrorKind::kData, {"no samples"});
  expect_error([&] { StepList(samples.lengths, samples.targets, {.micro_batch_size = 0}); }, core::ErrorKind::kUsage,
               {"0 samples"});
}

TEST(DealtToRank, EachMicroBatchGoesToOneRankAndNoneGetsMoreThanItsPart) {
  for (int64_t n = 0; n < 20; ++n) {
    for (int world = 1; world < 8; ++world) {
      std::vector<int> owners(static_cast<size_t>(n), 0);
      for (int rank = 0; rank < world; ++rank) {
        const std::vector<int64_t> mine = dealt_to_rank(n, rank, world);
        EXPECT_LE(static_cast<int64_t>(mine.size()), (n + world - 1) / world);
        EXPECT_TRUE(std::is_sorted(mine.begin(), mine.end()));
        for (const int64_t i : mine) ++owners.at(static_cast<size_t>(i));
      }
      EXPECT_EQ(owners, std::vector<int>(static_cast<size_t>(n), 1));
    }
  }
}

TEST(ShardOfRank, ShardsAreDisjointCompleteAndEven) {
  for (int64_t n = 0; n < 20; ++n) {
    for (int world = 1; world < 8; ++world) {
      int64_t next = 0;
      for (int rank = 0; rank < world; ++rank) {
        const Shard shard = shard_of_rank(n, rank, world);
        EXPECT_EQ(shard.begin, next);
        EXPECT_GE(shard.end - shard.begin, n / world);
        EXPECT_LE(shard.end - shard.begin, (n + world - 1) / world);
        next = shard.end;
      }
      EXPECT_EQ(next, n);
    }
  }
}

}  // namespace
}  // namespace neoloom::data
