// SPDX-License-Identifier: Apache-2.0
#include "launch/job/labels.h"

#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "data/store/labels.h"
#include "model/parameter_table.h"
#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;

constexpr size_t kShownLabels = 12;
constexpr size_t kShownNameBytes = 60;

/// Returns a name as it is if it needs no quotes.
std::string shown(const std::string& name) {
  const bool plain =
      std::none_of(name.begin(), name.end(), [](unsigned char c) { return c <= ' ' || c == '"' || c == ','; });
  return plain && !name.empty() && name.size() <= kShownNameBytes ? name : core::quoted(name, kShownNameBytes);
}

std::string list_of(const std::vector<std::string>& names) {
  std::vector<std::string> first;
  for (size_t i = 0; i < std::min(names.size(), kShownLabels); ++i) first.push_back(shown(names[i]));
  const std::string more = names.size() > kShownLabels ? fmt::format(" and {} more", names.size() - kShownLabels) : "";
  return fmt::format("[{}{}]", fmt::join(first, ", "), more);
}

bool has_default_names(const std::vector<std::string>& names) {
  return names == data::default_label_names(static_cast<int64_t>(names.size()));
}

at::Tensor index_of(const std::vector<int64_t>& rows, const at::Tensor& like) {
  return at::tensor(rows, at::kLong).to(like.device());
}

}  // namespace

std::string label_histogram(const std::vector<std::string>& names, const std::vector<int64_t>& counts, size_t most) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < std::min(names.size(), most); ++i) {
    parts.push_back(fmt::format("{} {}", shown(names[i]), counts[i]));
  }
  const std::string more = names.size() > most ? fmt::format(" and {} more", names.size() - most) : "";
  return fmt::format("{}{}", fmt::join(parts, ", "), more);
}

std::string value_summary(const data::TokenStore& store) {
  const std::vector<std::string>& names = store.label_names();
  std::vector<std::string> parts;
  for (size_t k = 0; k < std::min(names.size(), kShownLabels); ++k) {
    double sum = 0.0, squares = 0.0, least = INFINITY, most = -INFINITY;
    for (int64_t row = 0; row < store.size(); ++row) {
      const auto value = static_cast<double>(store.values(row)[k]);
      sum += value;
      squares += value * value;
      least = std::min(least, value);
      most = std::max(most, value);
    }
    const double mean = sum / static_cast<double>(store.size());
    const double deviation = std::sqrt(std::max(0.0, squares / static_cast<double>(store.size()) - mean * mean));
    parts.push_back(
        fmt::format("mean {:.4g}, standard deviation {:.4g}, from {:.4g} to {:.4g}", mean, deviation, least, most));
  }
  const std::string more = names.size() > kShownLabels ? fmt::format("; and {} more", names.size() - kShownLabels) : "";
  return fmt::format("{}{}", fmt::join(parts, "; "), more);
}

std::string label_warning(const std::vector<std::string>& names, const std::vector<int64_t>& counts) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] != "-1" && names[i] != "-1.0") continue;
    return fmt::format(
        "{} rows have the label {}, which usually marks a row without a label; it is trained as a class of its own. "
        "If it is not a class, remove these rows from the file",
        counts[i], names[i]);
  }
  return "";
}

HeadNames name_head_rows(const std::string& where, int64_t rows, const std::vector<std::string>& own,
                         const std::vector<std::string>& base, const std::vector<std::string>& given) {
  HeadNames head{own, ""};
  if (own.empty() && static_cast<int64_t>(base.size()) == rows) head = {base, "those of the base model's config.json"};
  const bool named = !head.names.empty() && !has_default_names(head.names);
  if (!given.empty() && !(named && given == head.names)) {
    core::require(static_cast<int64_t>(given.size()) == rows, ErrorKind::kUsage,
                  "data.label_names has {} names {}, but the classification head of {} has {} rows", given.size(),
                  list_of(given), where, rows);
    core::require(!named || !head.note.empty(), ErrorKind::kUsage,
                  "data.label_names is {}, but the labels of {} are {}: list them in this order, or remove the key",
                  list_of(given), where, list_of(head.names));
    return {given, "those of data.label_names"};
  }
  if (!head.names.empty()) return head;
  return {data::default_label_names(rows), fmt::format("named after the {} rows of score.weight, as in transformers; "
                                                       "--set data.label_names=[...] sets other names",
                                                       rows)};
}

std::optional<std::vector<int64_t>> rows_by_name(const std::vector<std::string>& stored,
                                                 const std::vector<std::string>& labels) {
  if (stored.size() != labels.size()) return std::nullopt;
  std::vector<int64_t> rows;
  for (const std::string& label : labels) {
    auto found = std::find(stored.begin(), stored.end(), label);
    if (found == stored.end() && has_default_names(stored)) {
      found = std::find(stored.begin(), stored.end(), "LABEL_" + label);
    }
    if (found == stored.end()) return std::nullopt;
    rows.push_back(found - stored.begin());
  }
  return rows;
}

HeadStart start_head(const std::string& base_name, const std::vector<std::string>& base,
                     const std::vector<std::string>& labels, bool ignore_mismatched_sizes) {
  if (base.empty()) return {};
  if (const auto rows = rows_by_name(base, labels)) {
    return {*rows,
            fmt::format("head: starts from that of {}, with its rows matched by label: {}", base_name, list_of(base))};
  }
  core::require(ignore_mismatched_sizes, ErrorKind::kUsage,
                "the base {} has a classification head for {} labels {}, the training data has {} labels {}: "
                "rows are matched by label name. Correct the labels, or list the base's in data.label_names "
                "if the data lacks some; or start from a fresh head: model_config.ignore_mismatched_sizes: true",
                base_name, base.size(), list_of(base), labels.size(), list_of(labels));
  return {{},
          fmt::format("head: a fresh one for {} labels {} (model_config.ignore_mismatched_sizes); "
                      "that of {} for {} labels {} is not used",
                      labels.size(), list_of(labels), base_name, base.size(), list_of(base))};
}

void reorder_head(const model::Model& model, const std::vector<int64_t>& rows, at::Tensor& params) {
  for (const model::ParameterSlot& slot : model.layout().slots) {
    if (!slot.name.ends_with(model::kScoreName)) continue;
    const at::Tensor head = params.narrow(0, slot.offset_elements, slot.elements()).view(slot.shape);
    head.copy_(head.index_select(0, index_of(rows, head)));
  }
}

}  // namespace neoloom::launch
