// SPDX-License-Identifier: Apache-2.0
#include "data/store/labels.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using core::fail;
using core::require;

constexpr size_t kNamesInMessages = 50;
constexpr size_t kNameInMessagesBytes = 60;
constexpr size_t kLongestIntegerDigits = 18;

/// Returns the value of a text that is an integer in its shortest decimal form, else nothing.
std::optional<int64_t> integer_of(const std::string& text) {
  const bool negative = text.starts_with('-');
  const std::string digits = text.substr(negative ? 1 : 0);
  if (digits.empty() || digits.size() > kLongestIntegerDigits) return std::nullopt;
  if (digits.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  if (digits.size() > 1 && digits[0] == '0') return std::nullopt;
  if (negative && digits == "0") return std::nullopt;
  return std::stoll(text);
}

/// Returns "1" for "1", "1." and "1.0"; "" for what is no whole number.
std::string whole_number(const std::string& text) {
  const size_t point = text.find('.');
  const std::string digits = text.substr(0, point);
  const bool whole = point == std::string::npos || text.find_first_not_of('0', point + 1) == std::string::npos;
  return whole && integer_of(digits) ? digits : "";
}

bool same_set(std::vector<std::string> a, std::vector<std::string> b) {
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  return a == b;
}

std::string list_of(const std::vector<std::string>& names) {
  std::vector<std::string> first(names.begin(),
                                 names.begin() + static_cast<int64_t>(std::min(names.size(), kNamesInMessages)));
  for (std::string& name : first) name = core::printable(name, kNameInMessagesBytes);
  return fmt::format("{}{}", fmt::join(first, ", "), first.size() == names.size() ? "" : ", ...");
}

bool are_integers(const std::vector<std::string>& labels) {
  return std::all_of(labels.begin(), labels.end(), [](const auto& label) { return integer_of(label).has_value(); });
}

}  // namespace

std::vector<std::string> sorted_labels(std::vector<std::string> labels) {
  const bool by_value = are_integers(labels);
  // Sorting UTF-8 by bytes is sorting by code points.
  std::sort(labels.begin(), labels.end(), [&](const std::string& a, const std::string& b) {
    return by_value ? *integer_of(a) < *integer_of(b) : a < b;
  });
  return labels;
}

std::vector<std::string> default_label_names(int64_t count) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < count; ++i) names.push_back(fmt::format("LABEL_{}", i));
  return names;
}

Labels::Labels(Request request) : request_(std::move(request)), file_(request_.path) {
  if (!request_.names) return;
  const std::vector<std::string>& names = *request_.names;
  require(!request_.num_labels || *request_.num_labels == static_cast<int64_t>(names.size()), ErrorKind::kUsage,
          "num_labels is {} but there are {} label names ({})", request_.num_labels.value_or(0), names.size(),
          list_of(names));
  for (size_t i = 0; i < names.size(); ++i) {
    require(numbers_.emplace(names[i], static_cast<int64_t>(i)).second, ErrorKind::kUsage,
            "the label name {} is listed twice", core::quoted(names[i], kNameInMessagesBytes));
  }
  positions_allowed_ =
      (request_.names_of_numbers || names == default_label_names(static_cast<int64_t>(names.size()))) &&
      std::none_of(names.begin(), names.end(), [](const auto& name) { return integer_of(name); });
  for (const std::string& name : names) {
    const std::string digits = whole_number(name);
    if (digits.empty()) continue;
    const bool fresh = by_whole_number_.emplace(digits, numbers_.at(name)).second;
    if (!fresh) by_whole_number_[digits] = -1;  // 1 and 1.0 are two labels here
  }
}

std::optional<int64_t> Labels::find_fixed(const std::string& label) const {
  const std::string digits = whole_number(label);
  if (digits.empty()) return std::nullopt;
  if (const auto same = by_whole_number_.find(digits); same != by_whole_number_.end() && same->second >= 0) {
    return same->second;
  }
  const int64_t position = *integer_of(digits);
  const bool named = positions_allowed_ && position >= 0 && position < static_cast<int64_t>(request_.names->size());
  return named ? std::optional(position) : std::nullopt;
}

void Labels::fail_outside(const std::string& label, const Place& place, const std::string& known) const {
  const bool numbered = request_.names && !positions_allowed_ && integer_of(label) && *integer_of(label) >= 0 &&
                        *integer_of(label) < static_cast<int64_t>(request_.names->size());
  fail(ErrorKind::kData, "{}: line {}: label {} is not one of the known labels: {}{}", place.file, place.line,
       core::quoted(label, kNameInMessagesBytes), known,
       numbered ? "; if numbers in the data stand for these labels in this order, set data.label_names to this list"
                : "; correct the row, or list all labels in data.label_names and train with them");
}

int64_t Labels::number_of(const std::string& label, int64_t line) {
  const auto known = numbers_.find(label);
  if (known != numbers_.end()) return known->second;
  if (request_.names) {
    if (const std::optional<int64_t> number = find_fixed(label)) return *number;
    fail_outside(label, {file_, line}, list_of(*request_.names));
  }
  const auto number = static_cast<int64_t>(found_.size());
  numbers_.emplace(label, number);
  found_.push_back(label);
  first_places_.push_back({file_, line});
  return number;
}

Labels::Result Labels::number_integers(int64_t num_labels) const {
  Result result;
  for (int64_t i = 0; i < num_labels; ++i) result.names.push_back(std::to_string(i));
  for (size_t number = 0; number < found_.size(); ++number) {
    const int64_t index = *integer_of(found_[number]);
    if (index < 0 || index >= num_labels) {
      fail_outside(found_[number], first_places_[number],
                   fmt::format("the integers from 0 to {} (num_labels is {})", num_labels - 1, num_labels));
    }
    result.class_index.push_back(index);
  }
  return result;
}

Labels::Result Labels::finish() const {
  Result result;
  if (request_.names) {
    result.names = *request_.names;
    result.class_index.resize(result.names.size());
    std::iota(result.class_index.begin(), result.class_index.end(), 0);
    return result;
  }
  if (request_.num_labels && are_integers(found_)) return number_integers(*request_.num_labels);
  require(!request_.num_labels || *request_.num_labels == static_cast<int64_t>(found_.size()), ErrorKind::kData,
          "{}: {} different labels ({}), but num_labels is {}; correct it, or list all names in data.label_names",
          request_.path, found_.size(), list_of(found_), request_.num_labels.value_or(0));
  result.names = sorted_labels(found_);
  if (same_set(result.names, request_.preferred)) result.names = request_.preferred;
  result.class_index.resize(found_.size());
  for (size_t i = 0; i < result.names.size(); ++i) {
    result.class_index[static_cast<size_t>(numbers_.at(result.names[i]))] = static_cast<int64_t>(i);
  }
  return result;
}

}  // namespace neoloom::data
