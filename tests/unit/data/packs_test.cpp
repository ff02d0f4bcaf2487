// SPDX-License-Identifier: Apache-2.0
#include "data/store/packs.h"

#include <numeric>
#include <set>

#include "data/batching/step_list.h"
#include "data/store/split.h"
#include "tests/support/fixed_store.h"
#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using testing::ElementsAre;

/// Makes a store whose sample i holds its own number, so many times.
std::shared_ptr<const TokenStore> of_lengths(const std::vector<int32_t>& lengths) {
  std::vector<std::vector<int32_t>> rows;
  rows.reserve(lengths.size());
  for (const int32_t length : lengths)
    rows.emplace_back(static_cast<size_t>(length), static_cast<int32_t>(rows.size()));
  return std::make_shared<support::FixedStore>(rows, /*causal=*/true);
}

std::vector<int32_t> numbers_of(const TokenStore& store) {
  std::vector<int32_t> numbers;
  for (int64_t sample = 0; sample < store.size(); ++sample) numbers.push_back(store.ids(sample).front());
  return numbers;
}

std::vector<int32_t> many_lengths() {
  std::vector<int32_t> lengths(500);
  for (int i = 0; i < 500; ++i) lengths[static_cast<size_t>(i)] = 1 + (i * 7919) % 97;
  return lengths;
}

TEST(Packs, TakeEachSampleIntoTheFullestOneWithRoomTheLongestFirst) {
  const auto store = pack_samples(of_lengths({1, 5, 5, 3, 4, 2}), 6);
  // 5 and 5 start packs, so do 4 and 3; 2 fills the one of 4, 1 the one of the second 5.
  EXPECT_THAT(numbers_of(*store), ElementsAre(0, 2, 1, 3, 4, 5));
  EXPECT_THAT(store->pack_begins(), ElementsAre(0, 2, 3, 4, 6));
  EXPECT_EQ(store->packs(), 4);
  EXPECT_EQ(store->pack_begin(3), 4);
  EXPECT_THAT(numbers_of(store->unpacked()), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ(pack_summary(*store, 6), "4 packs of up to 6 tokens, 83.3 % full, hold 6 samples");
}

TEST(Packs, HoldEverySampleOnceAndAreNearlyFull) {
  const std::vector<int32_t> lengths = many_lengths();
  const auto store = pack_samples(of_lengths(lengths), 128);
  const std::vector<int32_t> numbers = numbers_of(*store);
  EXPECT_EQ(std::set<int32_t>(numbers.begin(), numbers.end()).size(), 500U);
  for (const int32_t tokens : sums_of_packs(store->lengths(), store->pack_begins())) EXPECT_LE(tokens, 128);
  const int64_t tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  EXPECT_LT(static_cast<double>(store->packs()), 1.02 * static_cast<double>(tokens) / 128 + 1);
}

TEST(Packs, AreNotMadeWhereEachHoldsOneSample) {
  const auto store = of_lengths({6, 6, 5});
  EXPECT_EQ(pack_samples(store, 6), store);
  EXPECT_EQ(store->packs(), 3);
  EXPECT_EQ(store->pack_begin(2), 2);
}

TEST(Packs, BelongToTheHashOfTheData) {
  const auto store = of_lengths({1, 1, 2});
  EXPECT_NE(pack_samples(store, 3)->content_hash(), pack_samples(store, 4)->content_hash());
  EXPECT_NE(pack_samples(store, 3)->content_hash(), store->content_hash());
}

TEST(PackedSteps, CountPacksAndKeepTheirSamplesTogether) {
  const auto store = pack_samples(of_lengths(many_lengths()), 128);
  for (const Sampling sampling : {Sampling::kRandom, Sampling::kSequential, Sampling::kGroupByLength}) {
    StepList list(store->lengths(), store->target_counts(),
                  {.micro_batch_size = 2, .micro_batches_per_step = 3, .sampling = sampling}, {}, store->pack_begins());
    EXPECT_EQ(list.steps_per_epoch(), (store->packs() + 5) / 6);
    std::set<int64_t> seen;
    for (int64_t step = 0; step < list.steps_per_epoch(); ++step) {
      const Step found = list.step(0, step);
      double targets = 0;
      int64_t samples = 0;
      for (const auto& batch : found.micro_batches) {
        int packs = 0;
        for (size_t i = 0; i < batch.size(); ++i) {
          targets += store->target_counts()[static_cast<size_t>(batch[i])];
          seen.insert(batch[i]);
          const bool begins = std::ranges::binary_search(store->pack_begins(), batch[i]);
          packs += begins ? 1 : 0;
          EXPECT_TRUE(begins || batch[i] == batch[i - 1] + 1);
        }
        EXPECT_LE(packs, 2);
        samples += std::ssize(batch);
      }
      EXPECT_EQ(found.target_weight, targets);
      EXPECT_EQ(found.samples, samples);
    }
    EXPECT_EQ(std::ssize(seen), store->size());
  }
}

class Documents : public StoreTest {
 protected:
  Documents() {
    request_.task = Task::kCausalLm;
    request_.max_length_tokens = 4;
  }
  static constexpr const char* kRows = "{\"text\": \"abcdef\"}\n{\"text\": \"x\"}\n";
  static constexpr const char* kLines = "abcdef\n\nx\n";
};

TEST_F(Documents, OfRowsAreCutWhereRowsLoseTheirEnd) {
  const auto rows = build("a.jsonl", kRows);
  EXPECT_THAT(texts_of(*rows), ElementsAre("abcd", "x<eos>"));
  EXPECT_EQ(rows->truncated_samples(), 1);
  request_.options.pack = "documents";
  const auto documents = build("a.jsonl", kRows);
  EXPECT_THAT(texts_of(*documents), ElementsAre("abcd", "ef<eos>", "x<eos>"));
  EXPECT_EQ(documents->truncated_samples(), 0);
  EXPECT_THAT(documents->target_counts(), ElementsAre(3, 2, 1));
  EXPECT_NE(documents->content_hash(), rows->content_hash());
}

TEST_F(Documents, OfPlainTextAreFilesUnlessLinesAreAskedFor) {
  const auto file = build("a.txt", kLines);
  EXPECT_THAT(texts_of(*file), ElementsAre("abcd", "ef\n\n", "x\n<eos>"));
  request_.options.pack = "documents";
  EXPECT_EQ(build("a.txt", kLines)->content_hash(), file->content_hash());
  for (const char* pack : {"samples", "none"}) {
    request_.options.pack = pack;
    const auto lines = build("a.txt", kLines);
    EXPECT_THAT(texts_of(*lines), ElementsAre("abcd", "<eos>", "x<eos>"));
    EXPECT_NE(lines->content_hash(), file->content_hash());
  }
}

TEST_F(Documents, OfMixedFilesAreFoundWhereverTheRowsAre) {
  folder_.write("1.txt", "ab");
  folder_.write("2.jsonl", kRows);
  request_.files = Files(std::vector<std::string>{folder_.file("1.txt"), folder_.file("2.jsonl")});
  const auto path = [&] { return TokenStore::path_for(request_, *tokenizer_, folder_.path()); };
  const std::string as_before = path();
  request_.options.pack = "documents";
  EXPECT_NE(path(), as_before);
}

TEST_F(Documents, SharePacksByDefaultIfAllFilesArePlainText) {
  const auto shares = [&](const char* pack, std::vector<std::string> names) {
    for (std::string& name : names) name = folder_.write(name, kRows);
    request_.options.pack = pack;
    request_.files = Files(names);
    return uses_packs(request_);
  };
  EXPECT_TRUE(shares("auto", {"a.txt", "b.txt"}));
  EXPECT_FALSE(shares("auto", {"a.txt", "b.jsonl"}));
  EXPECT_FALSE(shares("none", {"a.txt"}));
  EXPECT_TRUE(shares("samples", {"b.jsonl"}));
  EXPECT_TRUE(shares("documents", {"b.jsonl"}));
  request_.task = Task::kSingleLabel;
  EXPECT_FALSE(shares("auto", {"a.txt"}));
}

TEST_F(Documents, AreSplitForValidationBeforeTheyArePacked) {
  request_.options.pack = "samples";
  std::string rows;
  for (int i = 0; i < 20; ++i) rows += fmt::format("{{\"text\": \"{}\"}}\n", static_cast<char>('a' + i));
  const Split parts = split_store(build("a.jsonl", rows), 0.2, 1);
  EXPECT_EQ(pack_samples(parts.validation, 4)->size(), 4);
  EXPECT_EQ(pack_samples(parts.validation, 4)->packs(), 2);
  EXPECT_EQ(pack_samples(parts.train, 4)->packs(), 8);
}

}  // namespace
}  // namespace neoloom::data
