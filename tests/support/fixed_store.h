// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/token_store.h"

namespace neoloom::support {

/// Given rows in memory; labels alternate.
class FixedStore : public data::TokenStore {
 public:
  FixedStore(std::vector<std::vector<int32_t>> rows, bool causal) : rows_(std::move(rows)) {
    for (const auto& row : rows_) {
      lengths_.push_back(static_cast<int32_t>(row.size()));
      targets_.push_back(causal ? lengths_.back() - 1 : 1);
    }
  }
  int64_t size() const override { return static_cast<int64_t>(rows_.size()); }
  std::span<const int32_t> ids(int64_t sample) const override { return rows_.at(static_cast<size_t>(sample)); }
  int32_t prompt_tokens(int64_t) const override { return 0; }
  int64_t label(int64_t sample) const override { return sample % 2; }
  std::span<const uint8_t> multi_label(int64_t) const override { return {}; }
  std::span<const float> values(int64_t) const override { return {}; }
  bool labelled() const override { return true; }
  const std::vector<std::string>& label_names() const override { return names_; }
  std::span<const int32_t> lengths() const override { return lengths_; }
  std::span<const int32_t> target_counts() const override { return targets_; }
  const std::vector<data::InvalidRow>& invalid_rows() const override { return invalid_; }
  int64_t truncated_samples() const override { return 0; }
  const std::string& content_hash() const override { return hash_; }

 private:
  std::vector<std::vector<int32_t>> rows_;
  std::vector<int32_t> lengths_, targets_;
  std::vector<std::string> names_ = {"even", "odd"};
  std::vector<data::InvalidRow> invalid_;
  std::string hash_;
};

}  // namespace neoloom::support
