// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/targets.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/core/error.h"

namespace neoloom::train {
namespace {

using core::ErrorKind;
using Warnings = std::vector<std::string>;

// Says how many rows lost their targets, and to what.
std::string shape_of_rows(const TrainingData& training) {
  const auto lengths = training.store.lengths();
  const auto short_rows = std::count_if(lengths.begin(), lengths.end(), [](int32_t length) { return length <= 1; });
  int64_t prompts_only = 0;
  for (int64_t row = 0; row < training.store.size(); ++row) {
    const int32_t length = lengths[static_cast<size_t>(row)];
    prompts_only += length > 1 && training.store.prompt_tokens(row) >= length ? 1 : 0;
  }
  return fmt::format(
      "{} rows: {} have at most one token, {} have none after the prompt, "
      "{} were cut to tokenizer_config.max_length {}",
      training.store.size(), short_rows, prompts_only, training.store.truncated_samples(), training.max_length_tokens);
}

void check_tokens(const TrainingData& training, Warnings& warnings) {
  const int64_t without = training.store.packs_without_target();
  core::require(without < training.store.packs(), ErrorKind::kData,
                "{} holds no token to train on ({}). The first token of a text is never a target; "
                "with data.response_column, only tokens of the response are. "
                "Look for empty texts or responses, or raise tokenizer_config.max_length",
                training.path, shape_of_rows(training));
  if (without > 0) {
    warnings.push_back(
        fmt::format("{} of {} rows of {} hold no token to train on (the text or response is empty, "
                    "or all of it was cut off): the model learns nothing from these rows",
                    without, training.store.size(), training.path));
  }
  const auto warn_of_empty = [&](int64_t count, const char* what, const char* effect) {
    if (count == 0) return;
    warnings.push_back(fmt::format("{} of {} {} of {} are empty or white space: {}", count, training.store.size(), what,
                                   training.path, effect));
  };
  warn_of_empty(data::empty_prompts(training.store, training.empty), "prompts",
                "the model learns to answer without a question");
  warn_of_empty(data::empty_responses(training.store, training.empty), "responses", "the model learns to end at once");
  if (const int64_t cut = data::cut_responses(training.store, training.empty); cut > 0) {
    warnings.push_back(
        fmt::format("{} of {} responses of {} lost their end: the model is not taught to stop there; raise "
                    "tokenizer_config.max_length {}",
                    cut, training.store.size(), training.path, training.max_length_tokens));
  }
}

void check_texts(const TrainingData& training, Warnings& warnings) {
  const int64_t empty = data::empty_texts(training.store, training.empty);
  const int64_t rows = training.store.packs();
  core::require(empty < rows, ErrorKind::kData,
                "all {} texts of {} are empty or white space, so nothing tells their labels apart. "
                "Is data.text_column the right column?",
                empty, training.path);
  if (empty == 0) return;
  warnings.push_back(fmt::format("{} of {} texts of {} are empty or white space", empty, rows, training.path));
}

void check_classes(const TrainingData& training, Warnings& warnings) {
  const data::TokenStore& store = training.store;
  const std::vector<std::string>& names = store.label_names();
  std::vector<int64_t> rows_of(names.size(), 0);
  const int64_t rows = store.packs();
  for (int64_t row = 0; row < rows; ++row) {
    if (const int64_t label = store.label(store.pack_begin(row)); label >= 0) ++rows_of[static_cast<size_t>(label)];
  }
  const auto largest = std::max_element(rows_of.begin(), rows_of.end());
  if (largest == rows_of.end() || *largest < rows) return;
  const std::string& only = names[static_cast<size_t>(largest - rows_of.begin())];
  core::require(names.size() > 1, ErrorKind::kData,
                "all {} rows of {} have the label \"{}\": a classifier of one class learns nothing. "
                "Add rows of other labels, or check data.label_column",
                rows, training.path, only);
  warnings.push_back(
      fmt::format("all {} rows of {} have the label \"{}\", one of {}: the model will learn to predict it always", rows,
                  training.path, only, names.size()));
}

void check_label_sets(const TrainingData& training, Warnings& warnings) {
  const data::TokenStore& store = training.store;
  for (int64_t row = 1; row < store.size(); ++row) {
    if (!std::ranges::equal(store.multi_label(row), store.multi_label(0))) return;
  }
  const auto labels = store.multi_label(0);
  warnings.push_back(
      fmt::format("all {} rows of {} have the same {} of {} labels: the model will learn to predict them always",
                  store.packs(), training.path, std::count(labels.begin(), labels.end(), 1), labels.size()));
}

void check_values(const TrainingData& training, Warnings& warnings) {
  const data::TokenStore& store = training.store;
  for (int64_t row = 1; row < store.size(); ++row) {
    if (!std::ranges::equal(store.values(row), store.values(0))) return;
  }
  warnings.push_back(fmt::format("all {} rows of {} have the same value: the model will learn to predict it always",
                                 store.packs(), training.path));
}

}  // namespace

std::vector<std::string> check_training_data(const TrainingData& training) {
  Warnings warnings;
  if (training.task == data::Task::kCausalLm) {
    check_tokens(training, warnings);
    return warnings;
  }
  check_texts(training, warnings);
  if (training.task == data::Task::kMultiLabel) {
    check_label_sets(training, warnings);
  } else if (training.task == data::Task::kRegression) {
    check_values(training, warnings);
  } else {
    check_classes(training, warnings);
  }
  return warnings;
}

std::string check_evaluation_data(const data::TokenStore& store, const std::string& path) {
  const int64_t without = store.packs_without_target();
  core::require(without < store.packs(), ErrorKind::kData,
                "none of the {} rows of {} has a label or token to compute a loss on", store.packs(), path);
  if (without == 0) return "";
  return fmt::format("{} of {} rows of {} have no label or token to compute a loss on", without, store.packs(), path);
}

nlohmann::ordered_json length_histogram(const data::TokenStore& store) {
  constexpr int32_t kMostBins = 20;
  nlohmann::ordered_json bins = nlohmann::ordered_json::array();
  const std::span<const int32_t> lengths = store.lengths();
  if (lengths.empty()) return bins;
  const auto [least, greatest] = std::minmax_element(lengths.begin(), lengths.end());
  const int32_t first = *least;
  const int32_t width = (*greatest - first) / kMostBins + 1;
  std::vector<int64_t> samples(static_cast<size_t>((*greatest - first) / width + 1));
  for (const int32_t length : lengths) ++samples[static_cast<size_t>((length - first) / width)];
  for (size_t i = 0; i < samples.size(); ++i) {
    const int32_t from = first + static_cast<int32_t>(i) * width;
    bins.push_back({{"from", from}, {"to", from + width - 1}, {"samples", samples[i]}});
  }
  return bins;
}

}  // namespace neoloom::train
