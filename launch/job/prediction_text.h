// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/kept_columns.h"
#include "launch/job/inference.h"

namespace neoloom::launch {

/// Returns what the model says of a row, as a JSON object: {"label", "score", "scores"}, with several labels
/// {"labels", "scores"}, a regression {"value"} or {"values"}. Shapes: scores [num_labels], see train::class_scores.
std::string prediction_text(const Inference& inference, const float* scores);

/// The same for a row that cannot be used: {"label": null, "error": `reason`}.
std::string prediction_text(const Inference& inference, const std::string& reason);

/// A column of the input that goes to the output.
struct KeptColumn {
  std::string output;  // its key there
  std::string input;
};

/// Reads `NAME` or `KEY=NAME` of each word. Throws: Error(kUsage) for an empty name, a key twice, or one of `taken`.
std::vector<KeptColumn> parse_kept_columns(const std::vector<std::string>& words,
                                           const std::vector<std::string>& taken);

/// Returns the keys that the predictions of these models have: theirs, or of named models the names.
std::vector<std::string> keys_of_predictions(const std::vector<Inference>& models);

/// Writes the lines of a prediction in the order of the rows: {"index", the kept columns, the prediction}.
class PredictionLines {
 public:
  /// `kept` may be null when there are no columns.
  PredictionLines(std::vector<KeptColumn> columns, std::unique_ptr<data::KeptColumns> kept)
      : columns_(std::move(columns)), kept_(std::move(kept)) {}

  /// Returns the lines of the next rows. `predictions`: objects, each ended by a line break.
  std::string next(std::string_view predictions);
  /// Returns the line of the next row, whose columns have these `values`. `prediction`: an object.
  std::string next(const std::vector<std::string>& values, std::string_view prediction);

 private:
  std::vector<KeptColumn> columns_;
  std::unique_ptr<data::KeptColumns> kept_;
  std::vector<std::string> values_;
  int64_t index_ = 0;
};

}  // namespace neoloom::launch
