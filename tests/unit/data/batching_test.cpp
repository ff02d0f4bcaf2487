// SPDX-License-Identifier: Apache-2.0
#include "data/batching/prefetcher.h"
#include "data/batching/ragged_batch.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using testing::ElementsAre;

class Collating : public StoreTest {};

TEST_F(Collating, SamplesLieOneAfterTheOtherWithoutPadding) {
  const auto store = build("a.csv", "text,label\nabc,y\nd,x\n,y\n");
  const RaggedBatch batch = collate(*store, {1, 0, 2}, Task::kSingleLabel, 99);
  EXPECT_THAT(batch.ids, ElementsAre('d', 'a', 'b', 'c', 99)) << "an empty text is one pad token";
  EXPECT_THAT(batch.cu_seqlens, ElementsAre(0, 1, 4, 5));
  EXPECT_THAT(batch.targets, ElementsAre(0, 1, 1));
  EXPECT_THAT(batch.sample_ids, ElementsAre(1, 0, 2));
  EXPECT_TRUE(batch.target_rows.empty());
}

TEST_F(Collating, EveryTokenIsPredictedFromTheOneBefore) {
  request_.task = Task::kCausalLm;
  const auto store = build("a.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"c\"}\n");
  const RaggedBatch batch = collate(*store, {0, 1}, Task::kCausalLm, kEos);
  EXPECT_THAT(batch.ids, ElementsAre('a', 'b', kEos, 'c', kEos));
  EXPECT_THAT(batch.target_rows, ElementsAre(0, 1, 3));
  EXPECT_THAT(batch.targets, ElementsAre('b', kEos, kEos)) << "a real eos is a target, whatever pads";
}

TEST_F(Collating, PromptsCarryNoLoss) {
  request_.task = Task::kCausalLm;
  request_.options.prompt_column = "p";
  request_.options.response_column = "r";
  const auto store = build("a.jsonl", "{\"p\": \"ab\", \"r\": \"c\"}\n");
  const RaggedBatch batch = collate(*store, {0}, Task::kCausalLm, 0);
  EXPECT_THAT(batch.target_rows, ElementsAre(1, 2));
  EXPECT_THAT(batch.targets, ElementsAre('c', kEos));
}

TEST_F(Collating, ABatchHasAsManyTargetsAsTheStoreCounts) {
  request_.task = Task::kCausalLm;
  const auto store = build("a.jsonl", "{\"text\": \"abcd\"}\n{\"text\": \"c\"}\n");
  for (int64_t sample = 0; sample < store->size(); ++sample) {
    const RaggedBatch batch = collate(*store, {sample}, Task::kCausalLm, 0);
    EXPECT_EQ(static_cast<int32_t>(batch.targets.size()), store->target_counts()[static_cast<size_t>(sample)]);
  }
}

TEST_F(Collating, ManyLabelsBecomeNumbers) {
  request_.task = Task::kMultiLabel;
  request_.options.labels_column = "labels";
  const auto store =
      build("a.jsonl", "{\"text\": \"a\", \"labels\": [\"x\"]}\n{\"text\": \"b\", \"labels\": [\"x\", \"y\"]}\n");
  const RaggedBatch batch = collate(*store, {1, 0}, Task::kMultiLabel, 0);
  EXPECT_THAT(batch.multi_labels, ElementsAre(1, 1, 1, 0));
  EXPECT_TRUE(batch.targets.empty());
}

TEST_F(Collating, UnusablePadIdIsRefused) {
  const auto store = build("a.csv", "text,label\nabc,y\n");
  expect_error([&] { collate(*store, {0}, Task::kSingleLabel, -1); }, core::ErrorKind::kInternal, {"pad id -1"});
  expect_error([&] { collate(*store, {1}, Task::kSingleLabel, 0); }, core::ErrorKind::kInternal, {"sample 1 of 1"});
}

std::function<std::optional<int64_t>()> count_to(int64_t last, std::atomic<int64_t>& made) {
  return [last, &made]() -> std::optional<int64_t> {
    if (made == last) return std::nullopt;
    return ++made;
  };
}

TEST(Prefetching, ItemsComeInOrderAndThenNone) {
  std::atomic<int64_t> made = 0;
  Prefetcher<int64_t> prefetcher(count_to(100, made), 3);
  for (int64_t i = 1; i <= 100; ++i) EXPECT_EQ(prefetcher.pop(), i);
  EXPECT_FALSE(prefetcher.pop().has_value());
  EXPECT_FALSE(prefetcher.pop().has_value());
}

TEST(Prefetching, RunsNoFurtherAheadThanItsDepth) {
  std::atomic<int64_t> made = 0;
  Prefetcher<int64_t> prefetcher(count_to(100, made), 2);
  prefetcher.pop();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LE(made, 1 + 2 + 1);  // one taken, two waiting, one in hand
  EXPECT_GE(made, 3);
}

TEST(Prefetching, ErrorArrivesAfterTheItemsBeforeIt) {
  int calls = 0;
  Prefetcher<int64_t> prefetcher(
      [&calls]() -> std::optional<int64_t> {
        if (++calls == 3) throw core::Error(core::ErrorKind::kData, "row 3 is bad");
        return calls;
      },
      8);
  EXPECT_TRUE(prefetcher.pop().has_value());
  EXPECT_TRUE(prefetcher.pop().has_value());
  expect_error([&] { prefetcher.pop(); }, core::ErrorKind::kData, {"row 3 is bad"});
  expect_error([&] { prefetcher.pop(); }, core::ErrorKind::kData, {"row 3 is bad"});
}

TEST(Prefetching, CanBeDroppedWhileItWaits) {
  std::atomic<int64_t> made = 0;
  { Prefetcher<int64_t> prefetcher(count_to(1'000'000, made), 2); }
  EXPECT_LE(made, 3);
}

}  // namespace
}  // namespace neoloom::data
