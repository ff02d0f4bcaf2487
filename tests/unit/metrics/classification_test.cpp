// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/classification.h"

#include <gtest/gtest.h>

#include "runtime/core/error.h"

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
  EXPECT_EQ(first.macro_f1(), all.macro_f1());
  EXPECT_EQ(first.accuracy(), 0.6);
}

TEST(Classification, NothingCountedIsZeroAndNotNan) {
  EXPECT_EQ(ConfusionCounts(4).accuracy(), 0.0);
  EXPECT_EQ(ConfusionCounts(4).macro_f1(), 0.0);
  EXPECT_EQ(MultiLabelCounts(4).subset_accuracy(), 0.0);
  EXPECT_EQ(MultiLabelCounts(4).micro_f1(), 0.0);
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

}  // namespace
}  // namespace neoloom::metrics
