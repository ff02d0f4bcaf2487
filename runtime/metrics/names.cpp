// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/names.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "runtime/metrics/score_counts.h"

namespace neoloom::metrics {
namespace {

using core::Task;

constexpr std::string_view kPrefix = "eval_";
constexpr std::array<std::string_view, 3> kAverages = {"macro", "micro", "weighted"};
constexpr std::array<std::string_view, 3> kAveraged = {"f1", "precision", "recall"};

// Names of scikit-learn, Hugging Face's evaluate and TRL.
constexpr std::array<std::pair<std::string_view, std::string_view>, 10> kOtherNames = {{
    {"f1", "macro_f1"},
    {"precision", "macro_precision"},
    {"recall", "macro_recall"},
    {"matthews_corrcoef", "mcc"},
    {"matthews_correlation", "mcc"},
    {"roc_auc_ovr", "roc_auc"},
    {"roc_auc_ovr_weighted", "weighted_roc_auc"},
    {"ece", "expected_calibration_error"},
    {"mean_token_accuracy", "token_accuracy"},
    {"subset_accuracy", "accuracy"},
}};

void add_averages(std::vector<std::string>& names) {
  for (const std::string_view score : kAveraged) {
    for (const std::string_view average : kAverages) names.push_back(fmt::format("{}_{}", average, score));
  }
}

// Returns "macro_f1" for "f1_macro", or "".
std::string average_first(std::string_view text) {
  for (const std::string_view score : kAveraged) {
    for (const std::string_view average : kAverages) {
      if (text == fmt::format("{}_{}", score, average)) return fmt::format("{}_{}", average, score);
    }
  }
  return "";
}

}  // namespace

std::vector<std::string> metric_names(Task task, int64_t num_labels) {
  if (task == Task::kCausalLm) return {"loss", "perplexity", "token_accuracy"};
  if (task == Task::kRegression) return {"loss", "mse", "mae", "pearson", "spearmanr"};
  std::vector<std::string> names = {"loss", "accuracy"};
  add_averages(names);
  names.emplace_back(task == Task::kMultiLabel ? "hamming_loss" : "mcc");
  names.insert(names.end(), {"roc_auc", "average_precision", "expected_calibration_error"});
  if (num_labels == 0 || num_labels > 2 || task == Task::kMultiLabel) {
    names.insert(names.end(), {"weighted_roc_auc", "weighted_average_precision"});
  }
  if (task == Task::kMultiLabel) return names;
  for (const int64_t k : TopKCounts::kSizes) {
    if (num_labels == 0 || num_labels > k) names.push_back(fmt::format("top_{}_accuracy", k));
  }
  return names;
}

std::string metric_name(std::string_view text) {
  if (text.starts_with(kPrefix)) text.remove_prefix(kPrefix.size());
  for (const auto& [other, own] : kOtherNames) {
    if (text == other) return std::string(own);
  }
  const std::string swapped = average_first(text);
  return swapped.empty() ? std::string(text) : swapped;
}

bool smaller_is_better(std::string_view metric) {
  return metric.ends_with("loss") || metric.ends_with("perplexity") || metric.ends_with("error") || metric == "mse" ||
         metric == "mae";
}

}  // namespace neoloom::metrics
