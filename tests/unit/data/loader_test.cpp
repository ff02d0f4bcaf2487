// SPDX-License-Identifier: Apache-2.0
#include "data/batching/loader.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using testing::ElementsAre;

class Collating : public StoreTest {};

TEST_F(Collating, ClassificationPadsOnTheRight) {
  const auto store = build("a.csv", "text,label\nabc,y\nd,x\n,y\n");
  const PaddedBatch batch = collate(*store, {1, 0, 2}, Task::kSequenceClassification, ProblemType::kSingleLabel, 99);
  EXPECT_EQ(batch.rows, 3);
  EXPECT_EQ(batch.length, 3);
  EXPECT_THAT(batch.ids, ElementsAre('d', 99, 99, 'a', 'b', 'c', 99, 99, 99));
  EXPECT_THAT(batch.lengths, ElementsAre(1, 3, 1));  // an empty text is one pad token
  EXPECT_THAT(batch.labels, ElementsAre(0, 1, 1));
  EXPECT_EQ(batch.tokens, 5);
  EXPECT_THAT(batch.sample_ids, ElementsAre(1, 0, 2));
}

TEST_F(Collating, CausalLabelsAreMaskedByLengthAndNeverById) {
  request_.task = Task::kCausalLm;
  const auto store = build("a.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"c\"}\n");
  const PaddedBatch batch = collate(*store, {0, 1}, Task::kCausalLm, ProblemType::kSingleLabel, kEos);
  EXPECT_THAT(batch.ids, ElementsAre('a', 'b', kEos, 'c', kEos, kEos));
  EXPECT_THAT(batch.labels, ElementsAre('a', 'b', kEos, 'c', kEos, -100)) << "a real eos keeps its label";
}

TEST_F(Collating, PromptsCarryNoLoss) {
  request_.task = Task::kCausalLm;
  request_.options.prompt_column = "p";
  request_.options.response_column = "r";
  const auto store = build("a.jsonl", "{\"p\": \"ab\", \"r\": \"c\"}\n");
  const PaddedBatch batch = collate(*store, {0}, Task::kCausalLm, ProblemType::kSingleLabel, 0);
  EXPECT_THAT(batch.labels, ElementsAre(-100, -100, 'c', kEos));
}

TEST_F(Collating, ManyLabelsBecomeNumbers) {
  request_.problem_type = ProblemType::kMultiLabel;
  request_.options.labels_column = "labels";
  const auto store =
      build("a.jsonl", "{\"text\": \"a\", \"labels\": [\"x\"]}\n{\"text\": \"b\", \"labels\": [\"x\", \"y\"]}\n");
  const PaddedBatch batch = collate(*store, {1, 0}, Task::kSequenceClassification, ProblemType::kMultiLabel, 0);
  EXPECT_THAT(batch.multi_labels, ElementsAre(1, 1, 1, 0));
  EXPECT_TRUE(batch.labels.empty());
}

TEST_F(Collating, UnusablePadIdIsRefused) {
  const auto store = build("a.csv", "text,label\nabc,y\n");
  expect_error([&] { collate(*store, {0}, Task::kSequenceClassification, ProblemType::kSingleLabel, -1); },
               core::ErrorKind::kInternal, {"pad id -1"});
  expect_error([&] { collate(*store, {1}, Task::kSequenceClassification, ProblemType::kSingleLabel, 0); },
               core::ErrorKind::kInternal, {"sample 1 of 1"});
}

std::function<std::optional<PaddedBatch>()> count_to(int64_t last, std::atomic<int64_t>& made) {
  return [last, &made]() -> std::optional<PaddedBatch> {
    if (made == last) return std::nullopt;
    PaddedBatch batch;
    batch.tokens = ++made;
    return batch;
  };
}

TEST(Prefetching, BatchesComeInOrderAndThenNone) {
  std::atomic<int64_t> made = 0;
  Prefetcher prefetcher(count_to(100, made), 3);
  for (int64_t i = 1; i <= 100; ++i) EXPECT_EQ(prefetcher.pop()->tokens, i);
  EXPECT_FALSE(prefetcher.pop().has_value());
  EXPECT_FALSE(prefetcher.pop().has_value());
}

TEST(Prefetching, RunsNoFurtherAheadThanItsDepth) {
  std::atomic<int64_t> made = 0;
  Prefetcher prefetcher(count_to(100, made), 2);
  prefetcher.pop();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LE(made, 1 + 2 + 1);  // one taken, two waiting, one in hand
  EXPECT_GE(made, 3);
}

TEST(Prefetching, ErrorArrivesAfterTheBatchesBeforeIt) {
  int calls = 0;
  Prefetcher prefetcher(
      [&calls]() -> std::optional<PaddedBatch> {
        if (++calls == 3) throw core::Error(core::ErrorKind::kData, "row 3 is bad");
        return PaddedBatch{};
      },
      8);
  EXPECT_TRUE(prefetcher.pop().has_value());
  EXPECT_TRUE(prefetcher.pop().has_value());
  expect_error([&] { prefetcher.pop(); }, core::ErrorKind::kData, {"row 3 is bad"});
  expect_error([&] { prefetcher.pop(); }, core::ErrorKind::kData, {"row 3 is bad"});
}

TEST(Prefetching, CanBeDroppedWhileItWaits) {
  std::atomic<int64_t> made = 0;
  { Prefetcher prefetcher(count_to(1'000'000, made), 2); }
  EXPECT_LE(made, 3);
}

}  // namespace
}  // namespace neoloom::data
