// SPDX-License-Identifier: Apache-2.0
#include "data/store/windows.h"

#include <set>

#include "data/hygiene.h"
#include "data/store/split.h"
#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// tests/parity/test_truncation.py compares windows with those of transformers.

std::vector<std::pair<size_t, size_t>> pairs(const std::vector<Window>& windows) {
  std::vector<std::pair<size_t, size_t>> all;
  all.reserve(windows.size());
  for (const auto& [begin, end] : windows) all.emplace_back(begin, end);
  return all;
}

TEST(Windows, ShareAStrideAndReachTheEndOnce) {
  using Pair = std::pair<size_t, size_t>;
  EXPECT_THAT(pairs(windows_of(10, 4, 1, false)), ElementsAre(Pair{0, 4}, Pair{3, 7}, Pair{6, 10}));
  EXPECT_THAT(pairs(windows_of(10, 4, 0, false)), ElementsAre(Pair{0, 4}, Pair{4, 8}, Pair{8, 10}));
  EXPECT_THAT(pairs(windows_of(10, 4, 0, true)), ElementsAre(Pair{6, 10}, Pair{2, 6}, Pair{0, 2}));
  EXPECT_THAT(pairs(windows_of(4, 4, 3, false)), ElementsAre(Pair{0, 4}));
  EXPECT_THAT(pairs(windows_of(0, 4, 3, false)), ElementsAre(Pair{0, 0}));
}

class StoresOfWindows : public StoreTest {
 protected:
  StoresOfWindows() {
    request_.max_length_tokens = 4;
    request_.tokenizer_options.return_overflowing_tokens = true;
    request_.tokenizer_options.stride = 1;
  }
  static constexpr const char* kRows = "text,label\nabcdef,x\ngh,y\nijklmnopq,x\n";
};

TEST_F(StoresOfWindows, HoldTheRowsAsPacksWithTheirLabels) {
  const auto store = build("a.csv", kRows);
  EXPECT_THAT(texts_of(*store), ElementsAre("abcd", "def", "gh", "ijkl", "lmno", "opq"));
  EXPECT_THAT(labels_of(*store), ElementsAre("x", "x", "y", "x", "x", "x"));
  EXPECT_THAT(store->pack_begins(), ElementsAre(0, 2, 3, 6));
  EXPECT_EQ(store->truncated_samples(), 0);
  EXPECT_EQ(window_summary(*store), "2 of 3 rows (66.7 %) are longer than max_length and have 5 windows");
  request_.tokenizer_options.stride = 2;
  EXPECT_NE(build("a.csv", kRows)->content_hash(), store->content_hash());
  request_.tokenizer_options = {};
  const auto cut = build("a.csv", kRows);
  EXPECT_THAT(texts_of(*cut), ElementsAre("abcd", "gh", "ijkl"));
  EXPECT_THAT(cut->pack_begins(), IsEmpty());
  EXPECT_EQ(window_summary(*cut), "");
}

TEST_F(StoresOfWindows, TrainApartFromEachOther) {
  const auto rows = build("a.csv", kRows);
  const auto apart = windows_apart(rows);
  EXPECT_THAT(apart->pack_begins(), IsEmpty());
  EXPECT_EQ(apart->packs(), 6);
  EXPECT_EQ(texts_of(*apart), texts_of(*rows));
  EXPECT_EQ(&apart->unpacked(), rows.get());
  EXPECT_THAT(label_counts(*apart, Task::kSingleLabel), ElementsAre(5, 1));
  EXPECT_THAT(label_counts(*rows, Task::kSingleLabel), ElementsAre(2, 1));
}

TEST_F(StoresOfWindows, AreSplitForValidationByRow) {
  std::string text = "text,label\n";
  for (int i = 0; i < 20; ++i) text += fmt::format("{},x\n", std::string(6, static_cast<char>('a' + i)));
  const Split parts = split_store(build("a.csv", text), 0.2, 1);
  EXPECT_EQ(parts.validation->packs(), 4);
  EXPECT_EQ(parts.validation->size(), 8);
  EXPECT_EQ(parts.train->packs(), 16);
  std::set<char> validates;
  for (const std::string& window : texts_of(*parts.validation)) validates.insert(window.front());
  for (const std::string& window : texts_of(*parts.train)) EXPECT_FALSE(validates.contains(window.front()));
  EXPECT_EQ(&parts.train->unpacked(), parts.train.get());
  EXPECT_EQ(windows_apart(parts.train)->unpacked().packs(), 16);
}

TEST_F(StoresOfWindows, StandForUnusableRowsOfAPrediction) {
  request_.every_row = true;
  request_.require_labels = false;
  request_.options.label_column.clear();
  const auto store = build("a.jsonl", "{\"text\": \"abcdef\"}\n{\"text\": 7}\n{\"text\": \"gh\"}\n");
  EXPECT_THAT(store->pack_begins(), ElementsAre(0, 2, 3, 4));
  ASSERT_EQ(store->invalid_rows().size(), 1U);
  EXPECT_EQ(store->invalid_rows()[0].sample, 1) << "its row";
}

TEST_F(StoresOfWindows, AreLookedAtByRow) {
  const auto rows = build("a.csv", "text,label\nabcdxxxx,x\nabcdyyyy,y\nabcdxxxx,y\nq,y\n");
  const Hygiene hygiene = inspect(*rows, nullptr, Task::kSingleLabel, {});
  EXPECT_EQ(hygiene.train.samples, 4);
  EXPECT_EQ(hygiene.train.repeated, 1) << "the first windows of three rows are equal";
  EXPECT_EQ(hygiene.train.contradictory_texts, 1);
  EXPECT_THAT(findings(hygiene, rows->label_names()).front().text,
              testing::AllOf(HasSubstr("tokens a window: median 4"), HasSubstr("3 of 4 rows (75 %)")));
}

TEST_F(StoresOfWindows, AreRefusedForLanguageModelsPairsAndLongStrides) {
  const auto refused = [&](const StoreRequest& request, const char* reason) {
    expect_error([&] { TokenStore::build(request, *tokenizer_, folder_.file("x.h5")); }, ErrorKind::kUsage, {reason});
  };
  request_.files = folder_.write("a.csv", kRows);
  StoreRequest request = request_;
  request.task = Task::kCausalLm;
  refused(request, "data.pack: documents");
  request = request_;
  request.options.text_pair_column = "label";
  refused(request, "text pairs have no windows");
  request = request_;
  request.tokenizer_options.stride = 4;
  refused(request, "tokenizer_config.stride: expected less than the 4 tokens");
}

class TruncationSide : public StoreTest {};

TEST_F(TruncationSide, LeftKeepsTheEnd) {
  request_.max_length_tokens = 4;
  request_.tokenizer_options.truncation_side = "left";
  const auto store = build("a.csv", "text,label\nabcdef,x\ngh,y\n");
  EXPECT_THAT(texts_of(*store), ElementsAre("cdef", "gh"));
  EXPECT_EQ(store->truncated_samples(), 1);
  EXPECT_TRUE(store->truncated(0));
  EXPECT_FALSE(store->truncated(1));
  request_.task = Task::kCausalLm;
  EXPECT_THAT(texts_of(*build("a.jsonl", "{\"text\": \"abcdef\"}\n")), ElementsAre("def<eos>"));
  request_.options.prompt_column = "p";
  request_.options.response_column = "r";
  const auto prompted = build("a.jsonl", "{\"p\": \"abc\", \"r\": \"de\"}\n{\"p\": \"abc\", \"r\": \"defgh\"}\n");
  EXPECT_THAT(texts_of(*prompted), ElementsAre("cde<eos>", "fgh<eos>"));
  EXPECT_EQ(prompted->prompt_tokens(1), 0);
  EXPECT_THAT(prompted->target_counts(), ElementsAre(3, 3));
}

TEST_F(TruncationSide, PartsOfAStoreCountWhatTheyLost) {
  std::string text = "text,label\n";
  for (int i = 0; i < 20; ++i) text += fmt::format("{},x\n", std::string(i < 10 ? 3 : 6, static_cast<char>('a' + i)));
  request_.max_length_tokens = 4;
  const auto store = build("a.csv", text);
  const Split parts = split_store(store, 0.3, 1);
  EXPECT_EQ(store->truncated_samples(), 10);
  EXPECT_EQ(parts.train->truncated_samples() + parts.validation->truncated_samples(), 10);
  const auto lengths = parts.train->lengths();
  EXPECT_EQ(parts.train->truncated_samples(), std::count(lengths.begin(), lengths.end(), 4));
}

}  // namespace
}  // namespace neoloom::data
