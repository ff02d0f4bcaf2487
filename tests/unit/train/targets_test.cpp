// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/targets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/core/error.h"
#include "tests/support/fixed_store.h"

namespace neoloom::train {
namespace {

using data::Task;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// Holds rows of these lengths, with labels and targets as given.
class Store : public support::FixedStore {
 public:
  explicit Store(const std::vector<size_t>& lengths) : FixedStore(rows(lengths), /*causal=*/true) {
    for (const int32_t length : this->lengths()) targets_.push_back(std::max(0, length - 1));
  }
  int32_t prompt_tokens(int64_t) const override { return prompts_; }
  int64_t label(int64_t sample) const override { return labels_.empty() ? sample % 2 : labels_.at(sample); }
  std::span<const uint8_t> multi_label(int64_t sample) const override { return flags_.at(sample); }
  const std::vector<std::string>& label_names() const override { return names_; }
  std::span<const int32_t> target_counts() const override { return targets_; }

  int32_t prompts_ = 0;
  std::vector<int64_t> labels_;
  std::vector<std::vector<uint8_t>> flags_;
  std::vector<std::string> names_ = {"ham", "spam"};
  std::vector<int32_t> targets_;

 private:
  static std::vector<std::vector<int32_t>> rows(const std::vector<size_t>& lengths) {
    std::vector<std::vector<int32_t>> rows;
    rows.reserve(lengths.size());
    for (const size_t length : lengths) rows.emplace_back(length);
    return rows;
  }
};

std::vector<std::string> warnings(const Store& store, Task task, int64_t empty_text_tokens = 0) {
  return check_training_data(
      {.store = store, .path = "rows.csv", .task = task, .max_length_tokens = 8, .empty = {.text = empty_text_tokens}});
}

std::string refusal(const Store& store, Task task, int64_t empty_text_tokens = 0) {
  try {
    warnings(store, task, empty_text_tokens);
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kData);
    return error.what();
  }
  return "";
}

TEST(TrainingData, WithoutATokenToLearnIsRefusedWithCounts) {
  const Store store({1, 1, 0});
  EXPECT_THAT(refusal(store, Task::kCausalLm),
              AllOf(HasSubstr("rows.csv"), HasSubstr("3 rows: 3 have at most one token"), HasSubstr("max_length 8")));
}

TEST(TrainingData, OfPromptsWithoutAnswersIsRefusedWithTheirNumber) {
  Store store({4, 4});
  store.prompts_ = 4;
  store.targets_ = {0, 0};
  EXPECT_THAT(refusal(store, Task::kCausalLm), HasSubstr("2 have none after the prompt"));
}

TEST(TrainingData, WithSomeRowsWithoutATokenToLearnIsTold) {
  EXPECT_THAT(warnings(Store({1, 5, 0}), Task::kCausalLm), ElementsAre(HasSubstr("2 of 3 rows of rows.csv")));
  EXPECT_THAT(warnings(Store({2, 5}), Task::kCausalLm), IsEmpty());
}

TEST(TrainingData, OfEmptyTextsIsRefusedAndAShareOfThemTold) {
  EXPECT_THAT(refusal(Store({0, 0}), Task::kSingleLabel), HasSubstr("all 2 texts of rows.csv are empty"));
  EXPECT_THAT(warnings(Store({0, 4, 4, 4}), Task::kSingleLabel), ElementsAre(HasSubstr("1 of 4 texts")));
  EXPECT_THAT(refusal(Store({1, 1}), Task::kSingleLabel, 1), HasSubstr("are empty")) << "a bos is no text";
  EXPECT_EQ(refusal(Store({1, 1}), Task::kSingleLabel), "");
}

TEST(TrainingData, OfOneClassIsRefusedAndOfOneAmongOthersTold) {
  Store store({4, 4, 4});
  store.labels_ = {0, 0, 0};
  EXPECT_THAT(warnings(store, Task::kSingleLabel),
              ElementsAre(AllOf(HasSubstr("all 3 rows"), HasSubstr("\"ham\", one of 2"))));
  store.names_ = {"ham"};
  EXPECT_THAT(refusal(store, Task::kSingleLabel),
              AllOf(HasSubstr("all 3 rows of rows.csv have the label \"ham\""), HasSubstr("data.label_column")));
}

TEST(TrainingData, WhoseRowsAllHaveTheSameLabelSetIsTold) {
  Store store({4, 4});
  store.flags_ = {{1, 0}, {1, 0}};
  EXPECT_THAT(warnings(store, Task::kMultiLabel), ElementsAre(HasSubstr("the same 1 of 2 labels")));
  store.flags_[1][1] = 1;
  EXPECT_THAT(warnings(store, Task::kMultiLabel), IsEmpty());
}

TEST(EvaluationData, WithoutATargetIsRefusedAndAShareOfSuchRowsTold) {
  EXPECT_THROW(check_evaluation_data(Store({1, 1}), "dev.csv"), core::Error);
  EXPECT_THAT(check_evaluation_data(Store({1, 4}), "dev.csv"), HasSubstr("1 of 2 rows of dev.csv"));
  EXPECT_EQ(check_evaluation_data(Store({4, 4}), "dev.csv"), "");
}

TEST(Lengths, AreCountedInBinsThatHoldEachSampleOnce) {
  EXPECT_EQ(length_histogram(Store({4, 4, 6})).dump(),
            R"([{"from":4,"to":4,"samples":2},{"from":5,"to":5,"samples":0},{"from":6,"to":6,"samples":1}])");
  std::vector<size_t> lengths;
  for (size_t length = 1; length <= 2048; ++length) lengths.push_back(length);
  const nlohmann::ordered_json bins = length_histogram(Store(lengths));
  EXPECT_LE(bins.size(), 20U);
  int64_t samples = 0, next = 1;
  for (const auto& bin : bins) {
    EXPECT_EQ(bin["from"], next);
    next = bin["to"].get<int64_t>() + 1;
    samples += bin["samples"].get<int64_t>();
  }
  EXPECT_EQ(samples, 2048);
  EXPECT_GT(next, 2048);
}

}  // namespace
}  // namespace neoloom::train
