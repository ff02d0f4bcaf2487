// SPDX-License-Identifier: Apache-2.0
#include "launch/report/comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace neoloom::launch {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

RunRecord run_with(const std::string& seed, const std::string& rate, const std::string& folder = "runs/a") {
  RunRecord run;
  run.name = run.folder = folder;
  run.config = {{"trainer_config.seed", seed},
                {"trainer_config.data_seed", "null"},
                {"trainer_config.learning_rate", rate},
                {"trainer_config.output_dir", folder}};
  return run;
}

TEST(Groups, HoldRunsThatDifferOnlyByTheirSeed) {
  const std::vector<RunRecord> runs = {run_with("1", "0.1", "a"), run_with("1", "0.2", "b"), run_with("2", "0.1", "c"),
                                       run_with("3", "0.1", "d")};
  EXPECT_THAT(groups_by_seed(runs), ElementsAre(ElementsAre(0, 2, 3), ElementsAre(1)));
}

TEST(Groups, HoldRunsThatDifferByKeysThatChangeNoMeasuredValue) {
  for (const char* key : {"trainer_config.logging_dir", "trainer_config.report_to", "logging.level",
                          "runtime.cache_dir", "trainer_config.save_steps"}) {
    std::vector<RunRecord> runs = {run_with("1", "0.1", "a"), run_with("2", "0.1", "b")};
    runs[0].config[key] = "1";
    runs[1].config[key] = "2";
    EXPECT_THAT(groups_by_seed(runs), ElementsAre(ElementsAre(0, 1))) << key;
  }
}

TEST(Groups, PartRunsThatMeasureUnlikeThings) {
  for (const char* key : {"data.validation", "trainer_config.early_stopping_patience", "trainer_config.logging_steps",
                          "data.train", "a_key.of_another_version"}) {
    std::vector<RunRecord> runs = {run_with("1", "0.1", "a"), run_with("2", "0.1", "b")};
    runs[0].config[key] = "1";
    runs[1].config[key] = "2";
    EXPECT_THAT(groups_by_seed(runs), ElementsAre(ElementsAre(0), ElementsAre(1))) << key;
  }
}

TEST(Groups, LeaveARunWithoutConfigurationAlone) {
  EXPECT_THAT(groups_by_seed({RunRecord{}, RunRecord{}}), ElementsAre(ElementsAre(0), ElementsAre(1)));
}

TEST(Spreads, AreThoseOfASample) {
  const Spread spread = spread_of({1.0, 2.0, 3.0, std::nan(""), 6.0});
  EXPECT_EQ(spread.count, 4U);
  EXPECT_DOUBLE_EQ(spread.mean, 3.0);
  EXPECT_DOUBLE_EQ(spread.deviation, std::sqrt(14.0 / 3.0));  // statistics.stdev([1, 2, 3, 6])
  EXPECT_EQ(spread.least, 1.0);
  EXPECT_EQ(spread.greatest, 6.0);
  EXPECT_TRUE(std::isnan(spread_of({5.0}).deviation));
  EXPECT_EQ(spread_of({}).count, 0U);
}

TEST(Comparison, NamesTheKeysThatDifferAndNoOthers) {
  const std::string html = comparison_sections({run_with("1", "0.1", "a"), run_with("1", "0.2", "b")});
  EXPECT_THAT(html, HasSubstr("<th scope=\"row\">trainer_config.learning_rate</th><td>0.1</td><td>0.2</td>"));
  EXPECT_THAT(html, Not(HasSubstr("<th scope=\"row\">trainer_config.seed")));
  EXPECT_THAT(html, Not(HasSubstr("<th scope=\"row\">trainer_config.output_dir")));
  EXPECT_THAT(html, HasSubstr("No two of these runs differ only by trainer_config.seed."));
}

TEST(Comparison, GivesMeanAndSpreadOverSeeds) {
  std::vector<RunRecord> runs = {run_with("1", "0.1", "a"), run_with("2", "0.1", "b")};
  for (size_t i = 0; i < 2; ++i) {
    runs[i].validation = {{"", {{10, {{"accuracy", i == 0 ? 0.5 : 0.75}}}}, {}}};
  }
  const std::string html = comparison_sections(runs);
  EXPECT_THAT(html, HasSubstr("2 runs: a, b"));
  EXPECT_THAT(html, HasSubstr("<th scope=\"row\">eval_accuracy</th><td>0.625</td><td>0.176777</td>"
                              "<td>0.5</td><td>0.75</td><td>2</td>"));
}

}  // namespace
}  // namespace neoloom::launch
