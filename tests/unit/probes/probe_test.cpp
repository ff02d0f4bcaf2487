// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/probes/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <stdexcept>

namespace neoloom::probes {
namespace {

using ::testing::ElementsAre;

struct Outcome {
  int code = 0;
  std::vector<Json> lines;
};

/// Measures three items; `measure` gets the index.
Outcome measure_three(const std::function<Json(size_t)>& measure, const Options& options = {}, bool usable = true) {
  const std::vector<Item> items = {{"a", {{"n", 1}}, "x", 2.0}, {"a", {{"n", 1}}, "y", 2.0}, {"b", {}, "x", 3.0}};
  std::vector<const Item*> pointers;
  pointers.reserve(items.size());
  for (const Item& item : items) pointers.push_back(&item);
  std::ostringstream out;
  Outcome outcome;
  outcome.code = measure_items(
      pointers, options, measure, [=] { return usable; }, out);
  std::istringstream in(out.str());
  for (std::string line; std::getline(in, line);) outcome.lines.push_back(Json::parse(line));
  return outcome;
}

TEST(Probe, PrintsALineForEachItemAndWhatWasLeftOut) {
  const Outcome outcome = measure_three([](size_t i) { return Json{{"milliseconds", i}}; });
  EXPECT_EQ(outcome.code, 0);
  ASSERT_EQ(outcome.lines.size(), 4);
  EXPECT_EQ(outcome.lines[1].dump(), R"({"case":"a","shape":{"n":1},"candidate":"y","flops":2.0,"milliseconds":1})");
  EXPECT_EQ(outcome.lines[3].dump(), R"({"left_out":[]})");
}

TEST(Probe, ARefusedCandidateSaysWhyAndTheOthersAreMeasured) {
  const Outcome outcome = measure_three([](size_t i) -> Json {
    if (i == 1) throw std::runtime_error("not supported\nframe #0: a stack");
    return {{"milliseconds", 1}};
  });
  EXPECT_EQ(outcome.code, 0);
  ASSERT_EQ(outcome.lines.size(), 4);
  EXPECT_EQ(outcome.lines[1]["error"], "not supported");
  EXPECT_FALSE(outcome.lines[1].contains("milliseconds"));
  EXPECT_TRUE(outcome.lines[2].contains("milliseconds"));
}

TEST(Probe, EndsWhenTheDeviceNoLongerWorks) {
  const Outcome outcome =
      measure_three([](size_t) -> Json { throw std::runtime_error("illegal memory access"); }, {}, /*usable=*/false);
  EXPECT_EQ(outcome.code, 8);
  ASSERT_EQ(outcome.lines.size(), 2);
  EXPECT_THAT(outcome.lines[1]["left_out"], ElementsAre("a: y", "b: x"));
}

TEST(Probe, WithoutTimeNamesEveryItem) {
  Options options;
  options.seconds = -1.0;
  const Outcome outcome = measure_three([](size_t) { return Json::object(); }, options);
  ASSERT_EQ(outcome.lines.size(), 1);
  EXPECT_THAT(outcome.lines[0]["left_out"], ElementsAre("a: x", "a: y", "b: x"));
}

TEST(Budget, KeepsTimeForAnItemAsLongAsTheLongestSoFar) {
  Budget budget(10.0);
  EXPECT_TRUE(budget.fits(0.0, 0.0));
  EXPECT_TRUE(budget.fits(3.0, 3.0));
  EXPECT_TRUE(budget.fits(7.0, 0.1));
  EXPECT_FALSE(budget.fits(7.5, 0.1));
}

TEST(Probe, ChoosesByCaseAndCandidate) {
  const std::vector<Item> items = {{"a", {}, "x", 0.0}, {"a", {}, "y", 0.0}, {"b", {}, "x", 0.0}};
  Options options;
  EXPECT_EQ(chosen(items, options).size(), 3);
  options.only = "a: x";
  ASSERT_EQ(chosen(items, options).size(), 1);
  EXPECT_EQ(chosen(items, options)[0].title(), "a: x");
}

}  // namespace
}  // namespace neoloom::probes
