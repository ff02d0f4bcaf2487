// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/eval_result.h"

#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "runtime/core/text.h"
#include "runtime/metrics/class_tables.h"

namespace neoloom::train {
namespace {

using metrics::LabelCounts;
using nlohmann::ordered_json;

void add_averages(const metrics::AverageScores& scores, ordered_json& json) {
  const auto add = [&](const std::string& name, const metrics::Averages& averages) {
    json["eval_macro_" + name] = averages.macro;
    json["eval_micro_" + name] = averages.micro;
    json["eval_weighted_" + name] = averages.weighted;
  };
  add("f1", scores.f1);
  add("precision", scores.precision);
  add("recall", scores.recall);
}

// Two classes have one ranking, that of the second class, as in scikit-learn.
void add_rankings(const EvalResult& result, ordered_json& json) {
  const std::vector<metrics::Ranking>& labels = result.rankings;
  if (result.single_label && labels.size() == 2) {
    json["eval_roc_auc"] = labels[1].roc_auc;
    json["eval_average_precision"] = labels[1].average_precision;
    return;
  }
  const metrics::RankingAverages roc_auc = metrics::roc_auc_of(labels);
  const metrics::RankingAverages precision = metrics::average_precision_of(labels);
  json["eval_roc_auc"] = roc_auc.macro;
  json["eval_weighted_roc_auc"] = roc_auc.weighted;
  json["eval_average_precision"] = precision.macro;
  json["eval_weighted_average_precision"] = precision.weighted;
}

// The main metrics come first: log lines show the first few.
void add_single_label(const EvalResult& result, ordered_json& json) {
  const metrics::ConfusionCounts& counts = *result.single_label;
  const metrics::AverageScores scores = counts.scores();
  json["eval_accuracy"] = counts.accuracy();
  json["eval_majority_baseline"] = result.majority_baseline;
  json["eval_macro_f1"] = scores.f1.macro;
  json["eval_mcc"] = counts.matthews_correlation();
  add_averages(scores, json);
  for (size_t i = 0; i < metrics::TopKCounts::kSizes.size(); ++i) {
    const int64_t k = metrics::TopKCounts::kSizes[i];
    if (k < counts.num_labels()) json[fmt::format("eval_top_{}_accuracy", k)] = result.top_k.accuracy(i);
  }
}

void add_multi_label(const EvalResult& result, ordered_json& json) {
  const metrics::AverageScores scores = result.multi_label->scores();
  json["eval_accuracy"] = result.multi_label->subset_accuracy();
  json["eval_majority_baseline"] = result.majority_baseline;
  json["eval_micro_f1"] = scores.f1.micro;
  json["eval_macro_f1"] = scores.f1.macro;
  add_averages(scores, json);
  json["eval_hamming_loss"] = result.multi_label->hamming_loss();
}

ordered_json matrix_of(const metrics::ConfusionCounts& counts) {
  ordered_json matrix = ordered_json::array();
  const auto width = static_cast<size_t>(counts.num_labels());
  for (size_t row = 0; row < width; ++row) {
    const auto cells = counts.cells().subspan(row * width, width);
    matrix.push_back(std::vector<int64_t>(cells.begin(), cells.end()));
  }
  return matrix;
}

ordered_json bins_of(const metrics::CalibrationBins& calibration) {
  ordered_json bins = ordered_json::array();
  for (const auto& bin : calibration.bins()) {
    bins.push_back({{"predictions", bin.predictions}, {"confidence", bin.confidence}, {"right", bin.right}});
  }
  return bins;
}

}  // namespace

ordered_json for_set(const std::string& name, const ordered_json& values) {
  constexpr std::string_view kPrefix = "eval_";
  if (name.empty()) return values;
  ordered_json renamed = ordered_json::object();
  for (const auto& [key, value] : values.items()) {
    renamed[key.starts_with(kPrefix) ? fmt::format("eval_{}_{}", name, key.substr(kPrefix.size())) : key] = value;
  }
  return renamed;
}

at::Tensor class_scores(core::Task task, const at::Tensor& logits, double temperature) {
  if (task == core::Task::kRegression) return logits.cpu().contiguous();
  const at::Tensor divided = temperature == 1.0 ? logits : logits.div(temperature);
  return (task == core::Task::kMultiLabel ? at::sigmoid(divided) : at::softmax(divided, -1)).cpu().contiguous();
}

double majority_baseline(const data::TokenStore& store, core::Task task) {
  std::unordered_map<std::string, int64_t> rows_of;
  int64_t most = 0;
  for (int64_t row = 0; row < store.packs(); ++row) {
    const int64_t sample = store.pack_begin(row);
    const auto set = store.multi_label(sample);
    const std::string truth =
        task == core::Task::kMultiLabel ? std::string(set.begin(), set.end()) : std::to_string(store.label(sample));
    most = std::max(most, ++rows_of[truth]);
  }
  return store.size() == 0 ? 0.0 : static_cast<double>(most) / static_cast<double>(store.packs());
}

void EvalResult::add_single(int64_t row, int64_t truth, std::span<const float> logits, std::span<const float> scores) {
  const int64_t predicted = std::max_element(logits.begin(), logits.end()) - logits.begin();
  const double score = scores[static_cast<size_t>(predicted)];
  single_label->add(truth, predicted);
  top_k.add(logits, truth);
  calibration.add(score, predicted == truth);
  if (predicted != truth) {
    metrics::add_mistake(mistakes, {row, truth, predicted, score, scores[static_cast<size_t>(truth)]});
  }
}

void EvalResult::add_multi(std::span<const uint8_t> truth, std::span<const float> logits, std::span<const float> scores,
                           std::span<const float> thresholds) {
  std::vector<uint8_t> predicted(logits.size());
  for (size_t k = 0; k < logits.size(); ++k) {
    predicted[k] = thresholds.empty() ? logits[k] > 0.0F : scores[k] > thresholds[k];  // sigmoid(0) is 0.5
    calibration.add(scores[k], truth[k] != 0);
  }
  multi_label->add(truth, predicted);
}

std::vector<std::span<int64_t>> EvalResult::cells() {
  if (single_label) return {single_label->cells(), top_k.cells(), calibration.cells()};
  if (multi_label) return {multi_label->cells(), calibration.cells()};
  return {};
}

std::vector<LabelCounts> EvalResult::label_counts() const {
  return single_label ? single_label->labels() : multi_label->labels();
}

ordered_json EvalResult::json() const {
  ordered_json json;
  json["eval_samples"] = samples;
  if (targets > 0) json["eval_loss"] = loss;
  if (single_label) {
    add_single_label(*this, json);
  } else if (multi_label) {
    add_multi_label(*this, json);
  } else if (regression) {
    json["eval_mse"] = regression->mse;
    json["eval_mae"] = regression->mae;
    json["eval_pearson"] = regression->pearson;
    json["eval_spearmanr"] = regression->spearmanr;
  } else if (targets > 0) {
    json["eval_tokens"] = targets;
    json["eval_perplexity"] = std::exp(loss);
    json["eval_token_accuracy"] = static_cast<double>(right) / static_cast<double>(targets);
  }
  if (!classifies()) return json;
  add_rankings(*this, json);
  json["eval_expected_calibration_error"] = calibration.expected_calibration_error();
  return json;
}

ordered_json EvalResult::tables(const std::vector<std::string>& labels) const {
  ordered_json json = ordered_json::object();
  if (!classifies()) return json;
  json["eval_labels"] = labels;
  ordered_json rows = ordered_json::array();
  const std::vector<LabelCounts> counts = label_counts();
  for (size_t k = 0; k < counts.size(); ++k) {
    rows.push_back({{"label", labels.at(k)},
                    {"rows", counts[k].support()},
                    {"predicted", counts[k].predicted()},
                    {"precision", counts[k].precision()},
                    {"recall", counts[k].recall()},
                    {"f1", counts[k].f1()},
                    {"roc_auc", rankings.at(k).roc_auc},
                    {"average_precision", rankings.at(k).average_precision}});
  }
  json["eval_per_class"] = rows;
  json["eval_calibration"] = bins_of(calibration);
  if (single_label) json["eval_confusion_matrix"] = matrix_of(*single_label);
  return json;
}

std::string EvalResult::text_tables(const std::vector<std::string>& labels) const {
  if (!classifies()) return "";
  const std::string table = metrics::class_table(label_counts(), labels);
  return single_label ? metrics::confusion_table(*single_label, labels) + table : table;
}

std::string EvalResult::warning_of_one_prediction(const std::vector<std::string>& labels) const {
  if (!classifies() || samples < 2 || majority_baseline == 1.0) return "";
  std::string all;
  const std::vector<LabelCounts> counts = label_counts();
  for (size_t k = 0; k < counts.size(); ++k) {
    if (counts[k].predicted() == 0) continue;
    if (counts[k].predicted() != samples) return "";
    all += (all.empty() ? "" : " and ") + core::quoted(labels.at(k), /*max_bytes=*/60);
  }
  return fmt::format(
      "all {} rows are predicted as {}, so the model tells no labels apart: its accuracy is {:.4f}, and "
      "always predicting the most frequent {} gives {:.4f}",
      samples, all.empty() ? "having no label" : all,
      single_label ? single_label->accuracy() : multi_label->subset_accuracy(),
      single_label ? "label" : "set of labels", majority_baseline);
}

}  // namespace neoloom::train
