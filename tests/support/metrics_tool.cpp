// SPDX-License-Identifier: Apache-2.0
// Gives tests in Python the metrics of an evaluation of given logits, their calibration, and what early stopping makes
// of evaluations: one JSON request a line on standard input, one JSON answer a line on standard output. See
// tests/support/optim_tool.py.
#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "runtime/metrics/calibration.h"
#include "runtime/metrics/names.h"
#include "runtime/train/best_model.h"
#include "runtime/train/early_stopping.h"
#include "runtime/train/eval_result.h"
#include "runtime/train/score_table.h"
#include "tests/support/fixed_store.h"

namespace {

using neoloom::core::Task;
using nlohmann::json;
namespace train = neoloom::train;
namespace metrics = neoloom::metrics;

/// Rows with these labels, or with these sets of labels.
class LabelledStore : public neoloom::support::FixedStore {
 public:
  LabelledStore(const json& truth, bool multi)
      : FixedStore(std::vector<std::vector<int32_t>>(truth.size(), {1}), /*causal=*/false) {
    if (multi) {
      sets_ = truth.get<std::vector<std::vector<uint8_t>>>();
    } else {
      labels_ = truth.get<std::vector<int64_t>>();
    }
  }
  int64_t label(int64_t sample) const override { return labels_.at(static_cast<size_t>(sample)); }
  std::span<const uint8_t> multi_label(int64_t sample) const override {
    return sets_.empty() ? std::span<const uint8_t>() : sets_.at(static_cast<size_t>(sample));
  }

 private:
  std::vector<int64_t> labels_;
  std::vector<std::vector<uint8_t>> sets_;
};

std::span<const float> row(const at::Tensor& values, int64_t i) {
  return {values.const_data_ptr<float>() + i * values.size(1), static_cast<size_t>(values.size(1))};
}

json early_stopping(const json& request) {
  train::BestModel best({.metric = "eval_loss", .greater_is_better = request.at("greater_is_better"), .data = ""},
                        false);
  train::EarlyStopping stopping(request.at("patience").get<int64_t>(), request.at("threshold"));
  json answer = {{"failed", json::array()}, {"stops", json::array()}};
  int64_t step = 0;
  for (const json& item : request.at("values")) {
    const double value = item.is_null() ? std::nan("") : item.get<double>();
    stopping.note(value, best);
    best.consider(++step, {{"eval_loss", value}}, at::Tensor());
    answer["failed"].push_back(stopping.json().at("failed_evaluations"));
    answer["stops"].push_back(stopping.stops());
  }
  return answer;
}

at::Tensor logits_of(const json& request) {
  std::vector<float> flat;
  for (const json& values : request.at("logits")) {
    for (const json& value : values) flat.push_back(value.is_null() ? std::nanf("") : value.get<float>());
  }
  return at::tensor(flat).view({-1, static_cast<int64_t>(request.at("logits").at(0).size())});
}

/// The temperature of logits, and for several labels a row the thresholds of given scores.
json calibrate(const json& request) {
  const at::Tensor logits = logits_of(request);
  const std::span<const float> values(logits.const_data_ptr<float>(), static_cast<size_t>(logits.numel()));
  if (!request.at("multi_label").get<bool>()) {
    const auto truth = request.at("truth").get<std::vector<int64_t>>();
    return {{"temperature", metrics::fit_temperature(values, std::span<const int64_t>(truth))}};
  }
  std::vector<uint8_t> truth;
  for (const json& row : request.at("truth")) truth.insert(truth.end(), row.begin(), row.end());
  const double temperature = metrics::fit_temperature(values, std::span<const uint8_t>(truth));
  const auto labels = static_cast<size_t>(logits.size(1));
  const auto scores = request.at("scores").get<std::vector<std::vector<float>>>();
  json thresholds = json::array();
  for (size_t k = 0; k < labels; ++k) {
    std::vector<std::pair<float, bool>> scored;
    for (size_t i = 0; i < scores.size(); ++i) scored.emplace_back(scores[i][k], truth[i * labels + k] != 0);
    thresholds.push_back(metrics::best_threshold(scored));
  }
  return {{"temperature", temperature}, {"thresholds", thresholds}};
}

json evaluate(const json& request, neoloom::comm::MpiSession& session) {
  const Task task = request.at("multi_label").get<bool>() ? Task::kMultiLabel : Task::kSingleLabel;
  const LabelledStore store(request.at("truth"), task == Task::kMultiLabel);
  const at::Tensor logits = logits_of(request);
  const int64_t labels = logits.size(1);
  const at::Tensor scores = train::class_scores(task, logits);
  train::EvalResult result;
  result.samples = result.targets = store.size();
  if (task == Task::kSingleLabel) result.single_label.emplace(labels);
  if (task == Task::kMultiLabel) result.multi_label.emplace(labels);
  for (int64_t i = 0; i < store.size(); ++i) {
    if (task == Task::kMultiLabel) {
      result.add_multi(store.multi_label(i), row(logits, i), row(scores, i));
    } else {
      result.add_single(i, store.label(i), row(logits, i), row(scores, i));
    }
  }
  train::ScoreTable table(store.size(), labels);
  table.add(scores);
  result.rankings = table.rank(session, store, task);
  result.majority_baseline = train::majority_baseline(store, task);
  std::vector<std::string> names;
  for (int64_t k = 0; k < labels; ++k) names.push_back(std::to_string(k));
  const float* const values = scores.const_data_ptr<float>();
  return {{"values", result.json()},
          {"tables", result.tables(names)},
          {"warning", result.warning_of_one_prediction(names)},
          {"names", metrics::metric_names(task, labels)},
          {"scores", std::vector<float>(values, values + scores.numel())}};
}

}  // namespace

int main(int argc, char** argv) {
  neoloom::comm::MpiSession session(&argc, &argv);
  for (std::string line; std::getline(std::cin, line);) {
    json answer;
    try {
      const json request = json::parse(line);
      answer = request.contains("patience")    ? early_stopping(request)
               : request.contains("calibrate") ? calibrate(request)
                                               : evaluate(request, session);
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
  return 0;
}
