// SPDX-License-Identifier: Apache-2.0
#include "data/store/labels.h"
#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using testing::ElementsAre;

class LabelMaps : public StoreTest {
 protected:
  std::shared_ptr<const TokenStore> with_labels(const std::vector<std::string>& labels) {
    std::string content;
    for (const std::string& label : labels) content += "{\"text\": \"t\", \"label\": " + label + "}\n";
    return build("a.jsonl", content);
  }
};

TEST_F(LabelMaps, NamesAreSortedByCodePoint) {
  const auto store = with_labels({"\"b\"", "\"a\"", "\"\u00e9\"", "\"Z\"", "\"b\""});
  EXPECT_THAT(store->label_names(), ElementsAre("Z", "a", "b", "\u00e9"));
  EXPECT_THAT(labels_of(*store), ElementsAre("b", "a", "\u00e9", "Z", "b"));
  EXPECT_TRUE(store->labelled());
}

TEST_F(LabelMaps, IntegersAreSortedByValue) {
  EXPECT_THAT(with_labels({"10", "9", "-1", "100"})->label_names(), ElementsAre("-1", "9", "10", "100"));
}

TEST_F(LabelMaps, OneNameAmongIntegersMakesAllOfThemNames) {
  EXPECT_THAT(with_labels({"10", "9", "\"x\""})->label_names(), ElementsAre("10", "9", "x"));
}

TEST_F(LabelMaps, IntegersOfCsvCountAsIntegers) {
  EXPECT_THAT(build("a.csv", "text,label\na,10\nb,9\n")->label_names(), ElementsAre("9", "10"));
  EXPECT_THAT(build("a.csv", "text,label\na,10\nb,09\n")->label_names(), ElementsAre("09", "10"));
}

TEST_F(LabelMaps, EmojiNamesSurvive) {
  const auto store = with_labels({"\"\U0001F44D\U0001F3FD\"", "\"\U0001F469\u200D\U0001F4BB\""});
  EXPECT_THAT(store->label_names(), ElementsAre("\U0001F44D\U0001F3FD", "\U0001F469\u200D\U0001F4BB"));
}

TEST_F(LabelMaps, FixedNamesKeepTheirOrder) {
  request_.options.label_names = {"spam", "ham", "never seen"};
  const auto store = with_labels({"\"ham\"", "\"spam\""});
  EXPECT_THAT(store->label_names(), ElementsAre("spam", "ham", "never seen"));
  EXPECT_EQ(store->label(0), 1);
  EXPECT_EQ(store->label(1), 0);
}

TEST_F(LabelMaps, MapOfTheRunOverridesTheConfiguredOne) {
  request_.options.label_names = {"a", "b"};
  request_.label_names = std::vector<std::string>{"b", "a"};
  EXPECT_EQ(with_labels({"\"a\""})->label(0), 1);
}

TEST_F(LabelMaps, LabelOutsideAFixedMapNamesLineLabelAndMap) {
  request_.label_names = std::vector<std::string>{"ham", "spam"};
  request_.options.invalid_data_tolerance_percent = 100;
  expect_data_error("a.csv", "text,label\na,ham\nb,egg\n", {"line 3", "\"egg\"", "ham, spam"});
}

TEST_F(LabelMaps, NumbersAreNoPositionsAmongTheNamesThatARunFound) {
  request_.label_names = std::vector<std::string>{"ham", "spam"};
  expect_error([&] { with_labels({"1"}); }, ErrorKind::kData, {"line 1", "\"1\"", "ham, spam", "data.label_names"});
  request_.options.label_names = {"ham", "spam"};  // the user's own list says what the numbers are
  EXPECT_THAT(labels_of(*with_labels({"1", "0"})), ElementsAre("spam", "ham"));
  request_.options.label_names.clear();
  request_.label_names = std::vector<std::string>{"1", "0"};
  EXPECT_THAT(labels_of(*with_labels({"1", "0", "1.0"})), ElementsAre("1", "0", "1"));
  request_.label_names = std::vector<std::string>{"LABEL_0", "LABEL_1"};  // numbers in words
  EXPECT_THAT(labels_of(*with_labels({"1", "0"})), ElementsAre("LABEL_1", "LABEL_0"));
}

TEST_F(LabelMaps, AFileOfTheBasesLabelsTakesItsOrder) {
  request_.preferred_label_names = {"spam", "ham"};
  EXPECT_THAT(with_labels({"\"ham\"", "\"spam\""})->label_names(), ElementsAre("spam", "ham"));
  EXPECT_THAT(labels_of(*with_labels({"\"ham\"", "\"spam\""})), ElementsAre("ham", "spam"));
  EXPECT_THAT(with_labels({"\"ham\"", "\"eggs\""})->label_names(), ElementsAre("eggs", "ham"));
  EXPECT_THAT(with_labels({"\"ham\""})->label_names(), ElementsAre("ham"));
  request_.options.label_names = {"ham", "spam"};
  EXPECT_THAT(with_labels({"\"ham\"", "\"spam\""})->label_names(), ElementsAre("ham", "spam"));
}

TEST_F(LabelMaps, WholeNumbersAndTruthValuesOfJsonAreLabels) {
  EXPECT_THAT(with_labels({"1.0", "0.0", "10.0"})->label_names(), ElementsAre("0", "1", "10"));
  EXPECT_THAT(with_labels({"true", "false"})->label_names(), ElementsAre("false", "true"));
  expect_error([&] { with_labels({"0.5"}); }, ErrorKind::kData, {"a whole number", "fractional number 0.5"});
  expect_error([&] { with_labels({"{}"}); }, ErrorKind::kData, {"an object"});
  request_.options.text_column = "label";
  expect_error([&] { with_labels({"1.0"}); }, ErrorKind::kData, {"expected a text"});
}

TEST_F(LabelMaps, FixedNamesMayNameIntegers) {
  request_.options.label_names = {"negative", "positive"};
  EXPECT_THAT(labels_of(*with_labels({"1", "0", "\"negative\""})), ElementsAre("positive", "negative", "negative"));
  expect_error([&] { with_labels({"2"}); }, ErrorKind::kData, {"\"2\"", "negative, positive"});
  request_.options.label_names = {"5", "7"};
  expect_error([&] { with_labels({"0"}); }, ErrorKind::kData, {"\"0\""});
}

TEST_F(LabelMaps, NumberOfClassesFixesIntegerLabels) {
  request_.num_labels = 4;
  const auto store = with_labels({"3", "0"});
  EXPECT_THAT(store->label_names(), ElementsAre("0", "1", "2", "3"));
  EXPECT_EQ(store->label(0), 3);
  expect_error([&] { with_labels({"1", "4"}); }, ErrorKind::kData, {"line 2", "\"4\"", "0 to 3"});
}

TEST_F(LabelMaps, NumberOfClassesMustFitTheNamesFound) {
  request_.num_labels = 3;
  expect_error(
      [&] {
        with_labels({"\"a\"", "\"b\""});
      },
      ErrorKind::kData, {"2 different labels (a, b)", "num_labels is 3"});
  request_.num_labels = 2;
  EXPECT_EQ(with_labels({"\"a\"", "\"b\""})->label_names().size(), 2U);
  request_.options.label_names = {"a", "b", "c"};
  expect_error([&] { with_labels({"\"a\""}); }, ErrorKind::kUsage, {"num_labels is 2", "3 label names"});
}

TEST_F(LabelMaps, RepeatedFixedNameIsRefused) {
  request_.options.label_names = {"a", "a"};
  expect_error([&] { with_labels({"\"a\""}); }, ErrorKind::kUsage, {"\"a\" is listed twice"});
}

TEST_F(LabelMaps, PredictionInputMayLackLabelsOrTheirColumn) {
  request_.require_labels = false;
  request_.label_names = std::vector<std::string>{"x", "y"};
  auto store =
      build("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\", \"label\": \"y\"}\n{\"text\": \"c\", \"label\": null}\n");
  EXPECT_THAT(labels_of(*store), ElementsAre("-", "y", "-"));
  EXPECT_FALSE(store->labelled());
  EXPECT_THAT(store->target_counts(), ElementsAre(0, 1, 0));
  EXPECT_EQ(store->packs_without_target(), 2);
  store = build("a.csv", "text\na\n");
  EXPECT_THAT(labels_of(*store), ElementsAre("-"));
}

TEST_F(LabelMaps, ManyLabelsFromJsonListsAndFromJoinedCsvFields) {
  request_.task = Task::kMultiLabel;
  request_.options.labels_column = "labels";
  auto store = build("a.jsonl",
                     "{\"text\": \"a\", \"labels\": [\"x\", \"y\"]}\n{\"text\": \"b\", \"labels\": []}\n{\"text\": "
                     "\"c\", \"labels\": [\"z\", \"z\"]}\n");
  EXPECT_THAT(store->label_names(), ElementsAre("x", "y", "z"));
  EXPECT_THAT(store->multi_label(0), ElementsAre(1, 1, 0));
  EXPECT_THAT(store->multi_label(1), ElementsAre(0, 0, 0));
  EXPECT_THAT(store->multi_label(2), ElementsAre(0, 0, 1));
  EXPECT_THAT(store->target_counts(), ElementsAre(1, 1, 1));
  store = build("a.csv", "text,labels\na,z|x\nb,\n");
  EXPECT_THAT(store->multi_label(0), ElementsAre(1, 1));
  EXPECT_THAT(store->multi_label(1), ElementsAre(0, 0));
  request_.options.labels_separator = "; ";
  store = build("b.csv", "text,labels\na,z; x|y\n");
  EXPECT_THAT(store->label_names(), ElementsAre("x|y", "z"));
  EXPECT_TRUE(store->labelled());
}

TEST_F(LabelMaps, IntegersInListsAreClassNumbers) {
  request_.task = Task::kMultiLabel;
  request_.options.labels_column = "labels";
  request_.num_labels = 3;
  const auto store = build("a.jsonl", "{\"text\": \"a\", \"labels\": [2, 0]}\n");
  EXPECT_THAT(store->multi_label(0), ElementsAre(1, 0, 1));
  expect_data_error("b.jsonl", "{\"text\": \"a\", \"labels\": [3]}\n", {"line 1", "\"3\"", "0 to 2"});
}

TEST_F(LabelMaps, OneHotListsAreRefusedWithTheWayToWriteThem) {
  request_.task = Task::kMultiLabel;
  request_.options.labels_column = "labels";
  const auto rows = [](const std::vector<std::string>& lists) {
    std::string content;
    for (const std::string& list : lists) content += "{\"text\": \"a\", \"labels\": " + list + "}\n";
    return content;
  };
  expect_data_error("a.jsonl", rows({"[1, 0, 0]", "[0, 1, 1]"}), {"line 1", "[1, 0, 0]", "one-hot"});
  expect_data_error("b.jsonl", rows({"[1, 0]", "[0, 1]"}), {"one-hot", "[1] for [0, 1]"});
  expect_data_error("c.jsonl", rows({"[1.0, 0.0]"}), {"one-hot"});
  expect_data_error("d.jsonl", rows({"[true, false]"}), {"one-hot"});
  EXPECT_THAT(build("e.jsonl", rows({"[1, 0]", "[0]", "[2]"}))->label_names(), ElementsAre("0", "1", "2"));
  EXPECT_THAT(build("f.jsonl", rows({"[1, 0]", "[1]"}))->multi_label(1), ElementsAre(0, 1));
}

TEST_F(LabelMaps, ListsOfOtherThingsAreUnreadableRows) {
  request_.task = Task::kMultiLabel;
  request_.options.labels_column = "labels";
  expect_data_error(
      "a.jsonl",
      "{\"text\": \"a\", \"labels\": [1.5]}\n{\"text\": \"a\", \"labels\": 7}\n{\"text\": \"a\", \"labels\": [\"\"]}\n",
      {"line 1: \"labels\"", "1.5", "line 2", "the integer 7", "line 3: one of the labels is empty"});
}

TEST_F(LabelMaps, MissingLabelColumnNameIsAUsageError) {
  request_.options.label_column.clear();
  expect_error([&] { with_labels({"1"}); }, ErrorKind::kUsage, {"data.label_column"});
}

TEST(Labels, AMessageShowsTheHeadOfALabelOfAnyLength) {
  Labels::Request request;
  request.path = "train.csv";
  request.names = {"ham", std::string(500'000, 'x')};
  Labels labels(request);
  try {
    labels.number_of(std::string(500'000, 'y'), 3);
    FAIL() << "an unknown label is an error";
  } catch (const core::Error& error) {
    EXPECT_LT(std::string(error.what()).size(), 500U);
  }
}

}  // namespace
}  // namespace neoloom::data
