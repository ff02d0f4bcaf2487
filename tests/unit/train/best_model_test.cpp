// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/best_model.h"

#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "runtime/checkpoint/directory.h"
#include "runtime/core/error.h"
#include "runtime/metrics/classification.h"
#include "runtime/metrics/names.h"
#include "runtime/train/eval_result.h"

namespace neoloom::train {
namespace {

using data::Task;
using nlohmann::ordered_json;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

Options judged_by(const std::string& metric, std::optional<bool> greater = std::nullopt) {
  Options options;
  options.load_best_model_at_end = true;
  options.metric_for_best_model = metric;
  options.greater_is_better = greater;
  return options;
}

// The judge of a run with one validation set, which has no name.
Judge judge_of(const Options& options, const std::string& validation_hash) {
  return train::judge_of(options, ValidationHashes{{"", validation_hash}});
}

std::string refusal(const Options& options, Task task) {
  try {
    check_metric(options, task);
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kUsage);
    return error.what();
  }
  return "";
}

at::Tensor values(float value) { return at::full({4}, value); }

BestModel chosen_by(const Options& options, const std::string& data = "d") {
  return BestModel(judge_of(options, data), /*keeps_params=*/true);
}

// Returns a checkpoint of step `step` whose parameters are all `step`.
checkpoint::State state_at(int64_t step, const BestModel& best) {
  checkpoint::State state;
  state.step = step;
  state.params.assign(4, static_cast<float>(step));
  state.exp_avg = state.exp_avg_sq = state.params;
  best.store(state);
  state.history = nlohmann::json{{"best_judge", best.judge_json()}}.dump();
  return state;
}

TEST(MetricForBestModel, LossesAndPerplexityAreBetterWhenSmaller) {
  for (const char* name : {"loss", "eval_loss", "perplexity", "eval_perplexity"}) {
    EXPECT_FALSE(judge_of(judged_by(name), "").greater_is_better) << name;
  }
  for (const char* name : {"accuracy", "eval_macro_f1"}) EXPECT_TRUE(judge_of(judged_by(name), "").greater_is_better);
  EXPECT_TRUE(judge_of(judged_by("loss", true), "").greater_is_better) << "the user has the last word";
}

TEST(MetricForBestModel, AnUnknownNameIsRefusedWithTheNearestAndAll) {
  EXPECT_THAT(refusal(judged_by("eval_macro_f2"), Task::kSingleLabel),
              testing::AllOf(HasSubstr("\"eval_macro_f2\"; did you mean macro_f1?"), HasSubstr("loss, accuracy")));
  EXPECT_THAT(refusal(judged_by("accuracy"), Task::kCausalLm), HasSubstr("loss, perplexity, token_accuracy"));
  EXPECT_THAT(refusal(judged_by("hamming_loss"), Task::kSingleLabel), HasSubstr("hamming_loss"));
  EXPECT_EQ(refusal(judged_by("eval_hamming_loss"), Task::kMultiLabel), "");
  Options unused = judged_by("f1");
  unused.load_best_model_at_end = false;
  EXPECT_EQ(refusal(unused, Task::kCausalLm), "");
}

TEST(MetricForBestModel, F1IsTheMeanOverLabels) {
  EXPECT_EQ(refusal(judged_by("f1"), Task::kSingleLabel), "");
  EXPECT_EQ(judge_of(judged_by("eval_f1"), "").metric, "eval_macro_f1");
}

TEST(MetricForBestModel, ANameThatNeedsMoreLabelsIsRefusedWhenTheirNumberIsKnown) {
  const Options options = judged_by("top_5_accuracy");
  EXPECT_EQ(check_metric(options, Task::kSingleLabel), "");
  EXPECT_EQ(check_metric(options, Task::kSingleLabel, 6), "");
  EXPECT_THROW(check_metric(options, Task::kSingleLabel, 5), core::Error);
}

TEST(MetricForBestModel, OfANamedSetBeginsWithItsName) {
  const ValidationHashes sets = {{"dev", "d"}, {"dev_hard", "h"}};
  const auto judge = [&](const char* name) { return train::judge_of(judged_by(name), sets); };
  EXPECT_EQ(judge("dev_loss"), (Judge{"eval_dev_loss", false, "d"}));
  EXPECT_EQ(judge("eval_dev_hard_mse"), (Judge{"eval_dev_hard_mse", false, "h"})) << "the longer name fits, too";
  EXPECT_EQ(judge("dev_f1"), (Judge{"eval_dev_macro_f1", true, "d"}));
  const std::vector<data::ValidationFiles> files = {{"dev", {}}, {"dev_hard", {}}};
  EXPECT_EQ(check_metric(judged_by("dev_hard_f1"), Task::kSingleLabel, 3, files), "");
  EXPECT_THROW(check_metric(judged_by("f1"), Task::kSingleLabel, 3, files), core::Error);
  EXPECT_THAT(check_metric(judged_by("dev_loss", true), Task::kCausalLm, 0, files), HasSubstr("worst"));
}

TEST(MetricForBestModel, ADirectionThatKeepsTheWorstIsTold) {
  EXPECT_THAT(check_metric(judged_by("loss", true), Task::kCausalLm), HasSubstr("worst"));
  EXPECT_EQ(check_metric(judged_by("loss", false), Task::kCausalLm), "");
}

// tests/parity/test_task_metrics.py has the same for classification.
TEST(MetricForBestModel, TheNamesOfALanguageModelAreThoseThatAnEvaluationGives) {
  EvalResult result;
  result.targets = 1;
  for (const std::string& name : metrics::metric_names(Task::kCausalLm)) {
    EXPECT_TRUE(result.json().contains("eval_" + name)) << name;
  }
}

TEST(BestModel, KeepsTheParametersOfTheBestEvaluation) {
  BestModel best = chosen_by(judged_by("loss"));
  EXPECT_TRUE(best.consider(2, {{"eval_loss", 0.5}}, values(2)));
  EXPECT_FALSE(best.consider(4, {{"eval_loss", 0.5}}, values(4))) << "a tie keeps the earlier one";
  EXPECT_FALSE(best.consider(6, {{"eval_loss", std::nan("")}}, values(6)));
  EXPECT_FALSE(best.consider(8, {{"eval_accuracy", 1.0}}, values(8)));
  EXPECT_FALSE(best.consider(8, {{"eval_loss", nullptr}}, values(8)));
  EXPECT_EQ(best.step(), 2);
  EXPECT_TRUE(best.consider(10, {{"eval_loss", 0.25}}, values(10)));
  EXPECT_THAT(best.params(), testing::AllOf(SizeIs(4), Each(10.0F)));
}

TEST(BestModel, PerplexityKeepsTheSmallest) {
  BestModel best = chosen_by(judged_by("perplexity"));
  best.consider(1, {{"eval_perplexity", 9.0}}, values(1));
  best.consider(2, {{"eval_perplexity", 12.0}}, values(2));
  EXPECT_EQ(best.step(), 1);
}

TEST(BestModel, ComesBackFromACheckpointOfALaterStep) {
  BestModel best = chosen_by(judged_by("loss"));
  best.consider(2, {{"eval_loss", 0.5}}, values(7));
  const checkpoint::State state = state_at(5, best);
  BestModel again = chosen_by(judged_by("loss"));
  EXPECT_EQ(again.restore(state, "/nowhere"), "");
  EXPECT_EQ(again.step(), 2);
  EXPECT_EQ(again.metric(), 0.5);
  EXPECT_THAT(again.params(), testing::AllOf(SizeIs(4), Each(7.0F)));
}

TEST(BestModel, OfTheCheckpointsOwnStepIsNotStoredTwice) {
  BestModel best = chosen_by(judged_by("loss"));
  best.consider(5, {{"eval_loss", 0.5}}, values(5));
  const checkpoint::State state = state_at(5, best);
  EXPECT_THAT(state.best_params, IsEmpty());
  BestModel again = chosen_by(judged_by("loss"));
  EXPECT_EQ(again.restore(state, "/nowhere"), "");
  EXPECT_EQ(again.params(), state.params);
}

TEST(BestModel, OfAnotherMetricDirectionOrDataIsForgotten) {
  BestModel best = chosen_by(judged_by("loss"));
  best.consider(2, {{"eval_loss", 0.5}}, values(7));
  const checkpoint::State state = state_at(5, best);
  const auto told = [&](BestModel other) {
    std::string text = other.restore(state, "/nowhere");
    EXPECT_EQ(other.step(), -1);
    EXPECT_THAT(other.params(), IsEmpty());
    return text;
  };
  EXPECT_THAT(told(chosen_by(judged_by("accuracy"))), HasSubstr("eval_loss"));
  EXPECT_THAT(told(chosen_by(judged_by("loss", true))), HasSubstr("greater_is_better"));
  EXPECT_THAT(told(chosen_by(judged_by("loss"), "other data")), HasSubstr("validation data"));
}

// Older versions of neoloom did not store the best parameters: they lie in the checkpoint of their step, if it still
// exists.
TEST(BestModel, OfAnOlderRunIsFoundInTheCheckpointOfItsStepOrForgotten) {
  checkpoint::State state = state_at(8, BestModel());
  state.history = R"({"events":[]})";
  state.best_step = 6;
  state.best_metric = 0.5;
  const std::string folder = testing::TempDir() + "/neoloom-best-" + std::to_string(::getpid());
  BestModel missing = chosen_by(judged_by("loss"));
  EXPECT_THAT(missing.restore(state, folder), HasSubstr("step 6"));
  EXPECT_EQ(missing.step(), -1);
  checkpoint::Directory(folder).publish(state_at(6, BestModel()));
  BestModel found = chosen_by(judged_by("loss"));
  EXPECT_EQ(found.restore(state, folder), "");
  EXPECT_EQ(found.step(), 6);
  EXPECT_THAT(found.params(), Each(6.0F));
  std::filesystem::remove_all(folder);
}

TEST(BestModel, WithoutItsParametersIsOnlyRemembered) {
  BestModel best(judge_of(judged_by("loss"), "d"), /*keeps_params=*/false);
  EXPECT_TRUE(best.consider(2, {{"eval_loss", 0.5}}, values(2)));
  EXPECT_THAT(best.params(), IsEmpty());
  const checkpoint::State state = state_at(5, best);
  EXPECT_EQ(state.best_step, 2);
  EXPECT_THAT(state.best_params, IsEmpty());
  EXPECT_THAT(chosen_by(judged_by("loss")).restore(state, "/nowhere"), HasSubstr("were not kept"));
}

}  // namespace
}  // namespace neoloom::train
