// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/classification.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/core/error.h"
#include "runtime/metrics/class_tables.h"
#include "runtime/metrics/names.h"
#include "runtime/metrics/ranking.h"
#include "runtime/metrics/score_counts.h"

namespace neoloom::metrics {
namespace {

// tests/parity/test_task_metrics.py compares the scores with scikit-learn. These tests check rules that hold for any
// input.

TEST(Classification, CountsOfTwoRanksAddUpToThoseOfOne) {
  ConfusionCounts all(3), first(3), second(3);
  const int64_t truth[] = {0, 1, 2, 2, 1};
  const int64_t predicted[] = {0, 2, 2, 1, 1};
  for (size_t i = 0; i < 5; ++i) {
    all.add(truth[i], predicted[i]);
    (i < 2 ? first : second).add(truth[i], predicted[i]);
  }
  for (size_t i = 0; i < first.cells().size(); ++i) first.cells()[i] += second.cells()[i];
  EXPECT_EQ(first.scores().f1.macro, all.scores().f1.macro);
  EXPECT_EQ(first.accuracy(), 0.6);
}

TEST(Classification, NothingCountedIsZeroAndNotNan) {
  EXPECT_EQ(ConfusionCounts(4).accuracy(), 0.0);
  EXPECT_EQ(ConfusionCounts(4).scores().f1.macro, 0.0);
  EXPECT_EQ(ConfusionCounts(4).matthews_correlation(), 0.0);
  EXPECT_EQ(MultiLabelCounts(4).subset_accuracy(), 0.0);
  EXPECT_EQ(MultiLabelCounts(4).scores().f1.micro, 0.0);
  EXPECT_EQ(MultiLabelCounts(4).hamming_loss(), 0.0);
  EXPECT_EQ(CalibrationBins().expected_calibration_error(), 0.0);
  EXPECT_EQ(TopKCounts().accuracy(0), 0.0);
}

TEST(Classification, LabelsOutsideTheMapAreRefused) {
  ConfusionCounts counts(2);
  EXPECT_THROW(counts.add(2, 0), core::Error);
  EXPECT_THROW(counts.add(0, -1), core::Error);
  MultiLabelCounts marks(2);
  const std::vector<uint8_t> three = {1, 0, 1};
  EXPECT_THROW(marks.add(three, three), core::Error);
}

TEST(ConfusionTable, AlignsNamesOfAnyWidthAndSaysWhatItLeavesOut) {
  ConfusionCounts counts(3);
  for (int i = 0; i < 1234; ++i) counts.add(1, 1);
  counts.add(0, 1);
  const std::string table = confusion_table(counts, {"ham", "spam \U0001F600", "other"}, 2);
  EXPECT_EQ(table,
            "true \\ predicted  ham  spam \U0001F600\n"
            "ham                 0        1\n"
            "spam \U0001F600             0     1234\n"
            "(2 of 3 labels shown)\n");
}

TEST(ClassTable, ShowsEachLabelsScores) {
  const std::vector<LabelCounts> counts = {{1, 1, 3}, {0, 0, 2}};
  EXPECT_EQ(class_table(counts, {"ham", "spam"}, 1),
            "label  precision     recall         f1       rows\n"
            "ham       0.5000     0.2500     0.3333          4\n"
            "(1 of 2 labels shown)\n");
}

TEST(Ranking, TheOrderOfTheScoresDoesNotMatter) {
  std::vector<float> with, without;
  for (int i = 0; i < 200; ++i) (i % 3 == 0 ? with : without).push_back(static_cast<float>(i * i % 31));
  const Ranking before = rank_scores(with, without);
  std::reverse(with.begin(), with.end());
  std::rotate(without.begin(), without.begin() + 17, without.end());
  const Ranking after = rank_scores(with, without);
  EXPECT_EQ(before.roc_auc, after.roc_auc);
  EXPECT_EQ(before.average_precision, after.average_precision);
}

TEST(Ranking, WithoutPositivesOrNegativesHasNoRocAuc) {
  EXPECT_TRUE(std::isnan(rank_scores({1.0F}, {}).roc_auc));
  EXPECT_TRUE(std::isnan(rank_scores({}, {1.0F}).roc_auc));
  EXPECT_TRUE(std::isnan(rank_scores({}, {}).roc_auc));
  EXPECT_EQ(rank_scores({}, {1.0F}).average_precision, 0.0);
}

TEST(MetricNames, TakesNamesOfOtherLibraries) {
  EXPECT_EQ(metric_name("eval_f1"), "macro_f1");
  EXPECT_EQ(metric_name("f1_weighted"), "weighted_f1");
  EXPECT_EQ(metric_name("matthews_corrcoef"), "mcc");
  EXPECT_EQ(metric_name("roc_auc_ovr_weighted"), "weighted_roc_auc");
  EXPECT_EQ(metric_name("eval_loss"), "loss");
  EXPECT_EQ(metric_name("bleu"), "bleu");
}

}  // namespace
}  // namespace neoloom::metrics
