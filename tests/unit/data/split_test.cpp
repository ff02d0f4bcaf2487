// SPDX-License-Identifier: Apache-2.0
#include "data/store/split.h"

#include <map>
#include <set>

#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using testing::ElementsAre;

class Splits : public StoreTest {
 protected:
  /// Builds a store with so many samples of each label.
  std::shared_ptr<const TokenStore> labelled(const std::map<std::string, int>& counts) {
    std::string rows = "text,label\n";
    for (const auto& [label, count] : counts) {
      for (int i = 0; i < count; ++i) rows += fmt::format("{}{},{}\n", label, i, label);
    }
    return build("a.csv", rows);
  }
  static std::map<std::string, int> counts_of(const TokenStore& store) {
    std::map<std::string, int> counts;
    for (const std::string& label : labels_of(store)) ++counts[label];
    return counts;
  }
  using Counts = std::map<std::string, int>;
};

TEST_F(Splits, PartsShareTheSamplesAndKeepTheirOrder) {
  const auto store = labelled({{"x", 30}, {"y", 20}});
  const Split parts = split_store(store, 0.2, 42);
  EXPECT_EQ(parts.validation->size(), 10);
  const std::vector<std::string> all = texts_of(*store);
  std::vector<std::string> merged;
  const std::vector<std::string> train = texts_of(*parts.train);
  const std::vector<std::string> validation = texts_of(*parts.validation);
  for (size_t i = 0, t = 0, v = 0; i < all.size(); ++i) {
    if (t < train.size() && train[t] == all[i]) {
      merged.push_back(train[t++]);
    } else if (v < validation.size()) {
      merged.push_back(validation[v++]);
    }
  }
  EXPECT_EQ(merged, all);
  EXPECT_NE(validation, (std::vector<std::string>(all.begin(), all.begin() + 10)));
}

TEST_F(Splits, EachLabelGivesItsShare) {
  EXPECT_EQ(counts_of(*split_store(labelled({{"x", 30}, {"y", 20}}), 0.2, 1).validation), (Counts{{"x", 6}, {"y", 4}}));
  // 0.1 x 105 samples = 11: 4.7, 3.1 and 3.1 rounded so that they sum up.
  EXPECT_EQ(counts_of(*split_store(labelled({{"x", 45}, {"y", 30}, {"z", 30}}), 0.1, 1).validation),
            (Counts{{"x", 5}, {"y", 3}, {"z", 3}}));
}

TEST_F(Splits, PartsHaveTheValuesOfARegression) {
  request_.task = Task::kRegression;
  request_.options.label_column = "score";
  std::string rows = "text,score\n";
  for (int i = 0; i < 10; ++i) rows += fmt::format("t{},{}.5\n", i, i);
  const Split parts = split_store(build("a.csv", rows), 0.3, 5);
  EXPECT_EQ(parts.validation->size(), 3);
  for (const auto& part : {parts.train, parts.validation}) {
    for (int64_t sample = 0; sample < part->size(); ++sample) {
      const float expected =
          static_cast<float>(std::stoi(texts_of(*part)[static_cast<size_t>(sample)].substr(1))) + 0.5F;
      EXPECT_THAT(part->values(sample), ElementsAre(expected));
    }
  }
}

TEST_F(Splits, ALabelOfOneSampleStaysInTrain) {
  const Split parts = split_store(labelled({{"a", 1}, {"b", 1}, {"x", 6}}), 0.5, 7);
  EXPECT_EQ(counts_of(*parts.validation), (Counts{{"x", 4}}));
  EXPECT_EQ(counts_of(*parts.train), (Counts{{"a", 1}, {"b", 1}, {"x", 2}}));
}

TEST_F(Splits, DependOnTheSeedAndBelongToTheHash) {
  const auto store = labelled({{"x", 30}, {"y", 20}});
  const auto chosen = [&](double share, int64_t seed) { return texts_of(*split_store(store, share, seed).validation); };
  EXPECT_EQ(chosen(0.2, 1), chosen(0.2, 1));
  EXPECT_NE(chosen(0.2, 1), chosen(0.2, 2));
  std::set<std::string> hashes = {store->content_hash()};
  for (const Split& parts : {split_store(store, 0.2, 1), split_store(store, 0.2, 2), split_store(store, 0.3, 1)}) {
    hashes.insert(parts.train->content_hash());
    hashes.insert(parts.validation->content_hash());
  }
  EXPECT_EQ(hashes.size(), 7U);
}

TEST_F(Splits, ALargerShareContainsASmallerOne) {
  const auto store = labelled({{"x", 100}});
  const auto few = texts_of(*split_store(store, 0.1, 3).validation);
  const auto many = texts_of(*split_store(store, 0.5, 3).validation);
  for (const std::string& text : few) EXPECT_THAT(many, testing::Contains(text));
}

TEST_F(Splits, PartsShowTheLengthsTargetsAndLabelsOfTheirSamples) {
  request_.task = Task::kMultiLabel;
  request_.options.label_column.clear();
  request_.options.labels_column = "labels";
  const auto store = build("a.jsonl", "{\"text\": \"a\", \"labels\": [\"x\"]}\n{\"text\": \"bcd\", \"labels\": []}\n");
  const Split parts = split_store(store, 0.5, 1);
  for (const auto& part : {parts.train, parts.validation}) {
    ASSERT_EQ(part->size(), 1);
    const bool first = text_of(*part, 0) == "a";
    EXPECT_THAT(part->lengths(), ElementsAre(first ? 1 : 3));
    EXPECT_EQ(part->multi_label(0)[0], first ? 1 : 0);
    EXPECT_THAT(part->target_counts(), ElementsAre(1));
    EXPECT_EQ(part->label_names(), store->label_names());
  }
}

TEST_F(Splits, APartWithoutSamplesIsAnError) {
  const auto store = labelled({{"x", 1}});
  expect_error([&] { split_store(store, 0.1, 1); }, core::ErrorKind::kData,
               {"data.validation_split: 0.1 of 1 samples leaves nothing to train on"});
}

}  // namespace
}  // namespace neoloom::data
