// SPDX-License-Identifier: Apache-2.0
#include "data/hygiene.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/fixed_store.h"

namespace neoloom::data {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::Not;

// tests/e2e/test_hygiene.py compares the report of whole files with counts in Python.

/// Rows of these tokens, with these labels or sets of labels.
class Store : public support::FixedStore {
 public:
  Store(std::vector<std::vector<int32_t>> rows, std::vector<int64_t> labels)
      : FixedStore(std::move(rows), /*causal=*/false), labels_(std::move(labels)) {}
  int64_t label(int64_t sample) const override { return labels_.at(static_cast<size_t>(sample)); }
  std::span<const float> values(int64_t sample) const override {
    return std::span(values_).subspan(static_cast<size_t>(sample), values_.empty() ? 0 : 1);
  }
  bool truncated(int64_t sample) const override { return !cut_.empty() && cut_.at(static_cast<size_t>(sample)); }
  std::span<const uint8_t> multi_label(int64_t sample) const override { return sets_.at(static_cast<size_t>(sample)); }
  int32_t prompt_tokens(int64_t sample) const override {
    return prompts_.empty() ? 0 : prompts_.at(static_cast<size_t>(sample));
  }

  std::vector<int64_t> labels_;
  std::vector<std::vector<uint8_t>> sets_;
  std::vector<int32_t> prompts_;
  std::vector<float> values_;
  std::vector<bool> cut_;
};

TEST(Hygiene, CountsRepeatedAndContradictorySamples) {
  const Store store({{1, 2}, {3}, {1, 2}, {1, 2}, {3}}, {0, 1, 0, 1, 1});
  const FileHygiene file = inspect(store, nullptr, Task::kSingleLabel, {}).train;
  EXPECT_EQ(file.repeated, 3);
  EXPECT_EQ(file.contradictory_texts, 1);
  ASSERT_TRUE(file.contradictory_example);
  EXPECT_EQ(file.contradictory_example->first, 0);
  EXPECT_EQ(file.contradictory_example->second, 3);
  EXPECT_THAT(file.label_samples, ElementsAre(2, 3));
}

TEST(Hygiene, OtherSetsOfLabelsContradict) {
  Store store({{1}, {1}, {2}, {2}}, {});
  store.sets_ = {{1, 0}, {1, 1}, {0, 1}, {0, 1}};
  const FileHygiene file = inspect(store, nullptr, Task::kMultiLabel, {}).train;
  EXPECT_EQ(file.repeated, 2);
  EXPECT_EQ(file.contradictory_texts, 1);
  EXPECT_THAT(file.label_samples, ElementsAre(2, 3));
}

TEST(Hygiene, AnotherBorderBetweenPromptAndResponseIsAnotherSample) {
  Store store({{1, 2, 3}, {1, 2, 3}, {1, 2, 3}}, {});
  store.prompts_ = {1, 2, 1};
  EXPECT_EQ(inspect(store, nullptr, Task::kCausalLm, {}).train.repeated, 1);
}

TEST(Hygiene, AResponseOfNothingButItsEndIsEmpty) {
  constexpr int32_t kBos = 8, kEnd = 9;
  Store store({{kBos, 1, kEnd}, {kBos, 1, 2}, {kBos, kEnd}, {kBos, 2, kEnd}, {kBos, 1}}, {});
  store.prompts_ = {2, 2, 1, 1, 2};
  const FileHygiene file =
      inspect(store, nullptr, Task::kCausalLm, {.text = 1, .prompts = true, .response_end = kEnd}).train;
  EXPECT_EQ(file.empty_responses, 2);
  EXPECT_EQ(file.empty_prompts, 2);
  const FileHygiene plain = inspect(store, nullptr, Task::kCausalLm, {.text = 1}).train;
  EXPECT_EQ(plain.empty_responses + plain.empty_prompts, 0);
}

TEST(Hygiene, WhiteSpaceAloneIsEmpty) {
  constexpr int32_t kBlank = 0, kWord = 1, kEnd = 9;
  EmptyTokens empty{.prompts = true, .response_end = kEnd, .blank = {true, false}};
  Store store({{kBlank, kWord, kEnd}, {kWord, kBlank, kEnd}, {kWord, kBlank, kWord, kEnd}}, {});
  store.prompts_ = {1, 1, 2};
  const FileHygiene file = inspect(store, nullptr, Task::kCausalLm, empty).train;
  EXPECT_EQ(file.empty_responses, 1);
  EXPECT_EQ(file.empty_prompts, 1);
  const Store texts({{kBlank, kBlank}, {kBlank, kWord}, {}}, {0, 1, 1});
  EXPECT_EQ(inspect(texts, nullptr, Task::kSingleLabel, empty).train.empty, 2);
}

TEST(Hygiene, OtherValuesContradict) {
  Store store({{1}, {1}, {2}, {2}}, {});
  store.values_ = {0.5F, 1.5F, 2.0F, 2.0F};
  const Hygiene found = inspect(store, nullptr, Task::kRegression, {});
  EXPECT_EQ(found.train.contradictory_texts, 1);
  EXPECT_THAT(findings(found, {}), Contains(Field(&Finding::text, HasSubstr("with more than one value (for example"))));
}

TEST(Hygiene, AResponseThatIsCutWithinLosesItsEnd) {
  constexpr int32_t kEnd = 9;
  Store store({{1, 2, 3}, {1, 2, kEnd}, {1, 2, 3}}, {});
  store.prompts_ = {1, 1, 1};
  store.cut_ = {true, true, false};
  const Hygiene found = inspect(store, nullptr, Task::kCausalLm, {.response_end = kEnd});
  EXPECT_EQ(found.train.cut_responses, 1);
  EXPECT_THAT(findings(found, {}), Contains(Field(&Finding::text, HasSubstr("; 1 response lost its end"))));
}

TEST(Hygiene, CountsEveryValidationSampleThatTrainingHas) {
  const Store train({{1}, {2}, {2}, {9}}, {0, 0, 0, 0});
  const Store validation({{3}, {2}, {1}, {2}}, {0, 0, 0, 0});
  const Hygiene found = inspect(train, &validation, Task::kSingleLabel, {});
  EXPECT_EQ(found.shared, 3);
  ASSERT_TRUE(found.shared_example);
  EXPECT_EQ(validation.ids(found.shared_example->first)[0], train.ids(found.shared_example->second)[0]);
  EXPECT_EQ(inspect(train, nullptr, Task::kSingleLabel, {}).shared, 0);
}

TEST(Hygiene, APercentileIsTheSmallestLengthThatSoManyDoNotExceed) {
  std::vector<std::vector<int32_t>> rows;
  for (size_t length = 100; length > 0; --length) rows.emplace_back(length, static_cast<int32_t>(length));
  const FileHygiene file = inspect(Store(rows, std::vector<int64_t>(100, 0)), nullptr, Task::kSingleLabel, {2}).train;
  EXPECT_EQ(file.median, 50);
  EXPECT_EQ(file.percentile_90, 90);
  EXPECT_EQ(file.percentile_99, 99);
  EXPECT_EQ(file.longest, 100);
  EXPECT_EQ(file.empty, 2);
}

TEST(Findings, NameRareAndMissingLabels) {
  Hygiene hygiene;
  hygiene.train.samples = 21;
  hygiene.train.label_samples = {12, 9, 0};
  hygiene.validation.emplace();
  hygiene.validation->samples = 10;
  hygiene.validation->label_samples = {10, 0, 0};
  const auto text = [](const std::string& part) { return Contains(Field(&Finding::text, HasSubstr(part))); };
  const std::vector<Finding> found = findings(hygiene, {"ham", "spam", "other"});
  EXPECT_THAT(found, text("fewer than 10 rows: \"spam\""));
  EXPECT_THAT(found, text("without a row: \"other\""));
  EXPECT_THAT(found, text("without a row: \"spam\", \"other\""));
  EXPECT_THAT(found, Not(text("repeat")));
  EXPECT_FALSE(found.front().warning);
}

}  // namespace
}  // namespace neoloom::data
