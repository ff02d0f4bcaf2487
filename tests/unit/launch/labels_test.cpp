// SPDX-License-Identifier: Apache-2.0
#include "launch/job/labels.h"

#include <ATen/ops/arange.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/gpt_neo/weights.h"
#include "model/weight_cache/weight_cache.h"
#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Names = std::vector<std::string>;

std::string usage_error(const std::function<void()>& act) {
  try {
    act();
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    return error.what();
  }
  return "accepted";
}

TEST(HeadRows, FollowNamesWhateverTheOrder) {
  EXPECT_THAT(*rows_by_name({"spam", "ham"}, {"ham", "spam"}), ElementsAre(1, 0));
  EXPECT_THAT(*rows_by_name({"a", "b", "c"}, {"c", "a", "b"}), ElementsAre(2, 0, 1));
  EXPECT_FALSE(rows_by_name({"spam", "ham"}, {"ham", "eggs"}));
  EXPECT_FALSE(rows_by_name({"spam", "ham"}, {"ham", "spam", "eggs"}));
  EXPECT_FALSE(rows_by_name({"spam", "ham"}, {"0", "1"}));
}

TEST(HeadRows, OfDefaultNamesAreTheClassesOfTheirNumbers) {
  EXPECT_THAT(*rows_by_name({"LABEL_0", "LABEL_1"}, {"1", "0"}), ElementsAre(1, 0));
  EXPECT_FALSE(rows_by_name({"LABEL_0", "LABEL_1"}, {"1", "2"}));
  EXPECT_FALSE(rows_by_name({"LABEL_0", "LABEL_1"}, {"ham", "spam"}));
}

TEST(HeadStart, GoesOnFromTheBaseOrFromAFreshHeadWithAWord) {
  EXPECT_THAT(start_head("base", {}, {"a", "b"}, false).note, IsEmpty());
  EXPECT_THAT(start_head("base", {"spam", "ham"}, {"spam", "ham"}, true).rows, ElementsAre(0, 1));
  for (const Names& labels : {Names{"a", "b", "c"}, Names{"positive", "negative"}}) {
    EXPECT_THAT(usage_error([&] {
                  start_head("base", {"spam", "ham"}, labels, false);
                }),
                AllOf(HasSubstr("head for 2 labels [spam, ham]"), HasSubstr(labels[0]), HasSubstr("data.label_names"),
                      HasSubstr("model_config.ignore_mismatched_sizes: true")));
    const HeadStart fresh = start_head("base", {"spam", "ham"}, labels, true);
    EXPECT_THAT(fresh.rows, IsEmpty());
    EXPECT_THAT(fresh.note, HasSubstr("fresh"));
  }
}

TEST(HeadNames, AreTheAdaptersThenTheBasesThenTheUsersThenNumbers) {
  EXPECT_THAT(name_head_rows("a", 2, {"x", "y"}, {"p", "q"}, {}).names, ElementsAre("x", "y"));
  EXPECT_THAT(name_head_rows("a", 2, {}, {"p", "q"}, {}).names, ElementsAre("p", "q"));
  EXPECT_THAT(name_head_rows("a", 3, {}, {"p", "q"}, {}).names, ElementsAre("LABEL_0", "LABEL_1", "LABEL_2"));
  EXPECT_THAT(name_head_rows("a", 2, {}, {}, {"ham", "spam"}).names, ElementsAre("ham", "spam"));
  EXPECT_THAT(name_head_rows("a", 2, {}, {"p", "q"}, {"ham", "spam"}).names, ElementsAre("ham", "spam"));
  EXPECT_THAT(name_head_rows("a", 2, {"LABEL_0", "LABEL_1"}, {}, {"ham", "spam"}).names, ElementsAre("ham", "spam"));
  EXPECT_THAT(usage_error([] {
                name_head_rows("a", 2, {}, {}, {"ham", "spam", "eggs"});
              }),
              AllOf(HasSubstr("3 names [ham, spam, eggs]"), HasSubstr("2 rows")));
  EXPECT_THAT(usage_error([] {
                name_head_rows("a", 2, {"x", "y"}, {}, {"y", "x"});
              }),
              HasSubstr("[x, y]: list them in this order"));
}

TEST(HeadNames, SayWhereTheyAreFromWhenTheHeadDoesNot) {
  EXPECT_THAT(name_head_rows("a", 2, {"x", "y"}, {}, {"x", "y"}).note, IsEmpty());
  EXPECT_THAT(name_head_rows("a", 2, {}, {"p", "q"}, {}).note, HasSubstr("base"));
  EXPECT_THAT(name_head_rows("a", 2, {}, {}, {}).note, HasSubstr("data.label_names"));
}

TEST(Weights, HaveTheirHeadInTheRunsOrderOrNone) {
  const auto weights = std::make_shared<model::Weights>();
  weights->score = at::arange(6, at::kFloat).view({3, 2});
  EXPECT_TRUE(model::with_score_rows(weights, {2, 0, 1})
                  ->score.equal(weights->score.index_select(0, at::arange(3, at::kLong).add(2).remainder(3))));
  EXPECT_FALSE(model::with_score_rows(weights, {})->score.defined());
  EXPECT_TRUE(weights->score.defined());
}

TEST(Histogram, ShowsTwelveLabelsAndCountsTheOthers) {
  EXPECT_EQ(label_histogram({"ham", "two words"}, {3, 4}), "ham 3, \"two words\" 4");
  Names names;
  for (int i = 0; i < 20; ++i) names.push_back(fmt::format("n{}", i));
  const std::string text = label_histogram(names, std::vector<int64_t>(20, 7));
  EXPECT_THAT(text, AllOf(HasSubstr("n11 7 and 8 more"), testing::Not(HasSubstr("n12"))));
}

TEST(Histogram, WarnsOfAClassThatMeansNoLabel) {
  EXPECT_THAT(label_warning({"-1", "0", "1"}, {5, 8, 9}), AllOf(HasSubstr("5 rows"), HasSubstr("-1")));
  EXPECT_THAT(label_warning({"0", "1"}, {8, 9}), IsEmpty());
}

}  // namespace
}  // namespace neoloom::launch
