// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/token_store.h"
#include "runtime/metrics/classification.h"
#include "runtime/metrics/mistakes.h"
#include "runtime/metrics/ranking.h"
#include "runtime/metrics/regression.h"
#include "runtime/metrics/score_counts.h"

namespace neoloom::train {

/// Returns the scores of a classifier, as predict writes them: softmax over the labels, sigmoid of each label, or the
/// values of a regression.
/// Shapes: logits, result [B, num_labels] fp32; the result is contiguous in host memory. `temperature`: of a
/// calibration (metrics::Calibration).
at::Tensor class_scores(core::Task task, const at::Tensor& logits, double temperature = 1.0);

/// Accuracy of a prediction that is always the same: the most frequent label of the store, or its most frequent set of
/// labels.
double majority_baseline(const data::TokenStore& store, core::Task task);

/// Renames the metrics of a named validation set as Hugging Face does: eval_loss becomes eval_NAME_loss. An empty name
/// changes nothing.
nlohmann::ordered_json for_set(const std::string& name, const nlohmann::ordered_json& values);

struct EvalResult {
  int64_t samples = 0;
  int64_t tokens = 0;
  int64_t targets = 0;  // labelled samples, or supervised tokens
  int64_t right = 0;    // causal LM: targets that have the largest logit
  double loss = 0.0;    // sum / targets
  double seconds = 0.0;
  // Classification of labelled data:
  std::optional<metrics::ConfusionCounts> single_label;
  std::vector<metrics::Mistake> mistakes;  // one label a row: the most confident ones
  std::optional<metrics::MultiLabelCounts> multi_label;
  std::optional<metrics::RegressionScores> regression;
  metrics::TopKCounts top_k;
  metrics::CalibrationBins calibration;
  std::vector<metrics::Ranking> rankings;  // by label
  double majority_baseline = 0.0;

  bool classifies() const { return single_label || multi_label; }
  /// Counts one sample. `row`: of the store, for the mistakes. Shapes: logits, scores [num_labels].
  void add_single(int64_t row, int64_t truth, std::span<const float> logits, std::span<const float> scores);
  /// `thresholds`: of a calibration [num_labels]; empty: 0.5.
  void add_multi(std::span<const uint8_t> truth, std::span<const float> logits, std::span<const float> scores,
                 std::span<const float> thresholds = {});
  /// The counts of classification, which sums over ranks complete.
  std::vector<std::span<int64_t>> cells();

  /// Numbers, with Hugging Face's `eval_` prefix; deterministic values only. Undefined ones are NaN.
  nlohmann::ordered_json json() const;
  /// Tables: eval_labels, eval_per_class, eval_calibration and, for one label a row, eval_confusion_matrix. Empty for
  /// other tasks.
  nlohmann::ordered_json tables(const std::vector<std::string>& labels) const;
  /// The same for people. "" for other tasks.
  std::string text_tables(const std::vector<std::string>& labels) const;
  /// A warning when all rows have the same prediction, but not the same truth; else "".
  std::string warning_of_one_prediction(const std::vector<std::string>& labels) const;

 private:
  std::vector<metrics::LabelCounts> label_counts() const;
};

}  // namespace neoloom::train
