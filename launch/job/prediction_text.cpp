// SPDX-License-Identifier: Apache-2.0
#include "launch/job/prediction_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;
using nlohmann::ordered_json;

ordered_json named_scores(const std::vector<std::string>& labels, const float* scores) {
  ordered_json json = ordered_json::object();
  for (size_t k = 0; k < labels.size(); ++k) json[labels[k]] = scores[k];
  return json;
}

ordered_json single_label(const std::vector<std::string>& labels, const float* scores) {
  const auto best = static_cast<size_t>(std::max_element(scores, scores + labels.size()) - scores);
  return {{"label", labels[best]}, {"score", scores[best]}, {"scores", named_scores(labels, scores)}};
}

ordered_json multi_label(const Inference& inference, const float* scores) {
  const std::vector<std::string>& labels = inference.labels;
  ordered_json chosen = ordered_json::array();
  for (size_t k = 0; k < labels.size(); ++k) {
    const float threshold = inference.calibration ? inference.calibration->values.thresholds[k] : 0.5F;
    if (scores[k] > threshold) chosen.push_back(labels[k]);
  }
  return {{"labels", chosen}, {"scores", named_scores(labels, scores)}};
}

ordered_json values(const float* values, size_t count) {
  if (count == 1) return {{"value", values[0]}};
  return {{"values", std::vector<float>(values, values + count)}};
}

/// Returns the key that a row without a prediction lacks.
const char* main_key(const Inference& inference) {
  if (inference.task.regression()) return inference.labels.size() == 1 ? "value" : "values";
  return inference.task.multi_label() ? "labels" : "label";
}

}  // namespace

std::string prediction_text(const Inference& inference, const float* scores) {
  const std::vector<std::string>& labels = inference.labels;
  if (inference.task.regression()) return values(scores, labels.size()).dump();
  return (inference.task.multi_label() ? multi_label(inference, scores) : single_label(labels, scores)).dump();
}

std::string prediction_text(const Inference& inference, const std::string& reason) {
  return ordered_json{{main_key(inference), nullptr}, {"error", reason}}.dump();
}

std::vector<KeptColumn> parse_kept_columns(const std::vector<std::string>& words,
                                           const std::vector<std::string>& taken) {
  std::vector<KeptColumn> columns;
  for (const std::string& word : words) {
    const size_t sign = word.find('=');
    const KeptColumn column{word.substr(0, sign), sign == std::string::npos ? word : word.substr(sign + 1)};
    core::require(!column.output.empty() && !column.input.empty(), ErrorKind::kUsage,
                  "--keep: expected names of columns such as id,text or KEY=COLUMN, found {}", core::quoted(word));
    core::require(std::find(taken.begin(), taken.end(), column.output) == taken.end(), ErrorKind::kUsage,
                  "--keep: predictions have a key {0} of their own; give the column another key: --keep my_{0}={1}",
                  column.output, column.input);
    core::require(
        std::none_of(columns.begin(), columns.end(), [&](const auto& c) { return c.output == column.output; }),
        ErrorKind::kUsage, "--keep: {} stands there twice", core::quoted(column.output));
    columns.push_back(column);
  }
  return columns;
}

std::vector<std::string> keys_of_predictions(const std::vector<Inference>& models) {
  if (models.front().name.empty()) {
    return {"index", "label", "labels", "score", "scores", "value", "values", "error"};
  }
  std::vector<std::string> keys = {"index"};
  for (const Inference& model : models) keys.push_back(model.name);
  return keys;
}

std::string PredictionLines::next(std::string_view predictions) {
  std::string lines;
  while (!predictions.empty()) {
    const size_t end = predictions.find('\n');
    if (kept_) kept_->next(values_);
    lines += next(values_, predictions.substr(0, end));
    predictions.remove_prefix(end + 1);
  }
  return lines;
}

std::string PredictionLines::next(const std::vector<std::string>& values, std::string_view prediction) {
  std::string line = fmt::format("{{\"index\":{}", index_++);
  for (size_t k = 0; k < columns_.size(); ++k) {
    line += fmt::format(",{}:{}", ordered_json(columns_[k].output).dump(), values[k]);
  }
  line += fmt::format(",{}\n", prediction.substr(1));  // without the opening brace
  return line;
}

}  // namespace neoloom::launch
