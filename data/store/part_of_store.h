// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/token_store.h"

namespace neoloom::data {

/// Shows some samples of a store as a store. Rows left out are counted by the whole store.
class PartOfStore : public TokenStore {
 public:
  struct Grouping {
    std::vector<int64_t> pack_begins = {};  // TokenStore::pack_begins of the part
    bool changed = false;                   // the part has all samples of `whole`, which is its unpacked()
  };
  /// `samples`: of `whole`, in the order in which the part has them. The part's content hash covers the whole's and
  /// `name`, which says how the samples were chosen.
  PartOfStore(std::shared_ptr<const TokenStore> whole, std::vector<int64_t> samples, const std::string& name,
              Grouping grouping);

  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  std::span<const int32_t> ids(int64_t sample) const override { return whole_->ids(in_whole(sample)); }
  int32_t prompt_tokens(int64_t sample) const override { return whole_->prompt_tokens(in_whole(sample)); }
  std::span<const int32_t> target_spans(int64_t sample) const override {
    return whole_->target_spans(in_whole(sample));
  }
  int64_t label(int64_t sample) const override { return whole_->label(in_whole(sample)); }
  std::span<const uint8_t> multi_label(int64_t sample) const override { return whole_->multi_label(in_whole(sample)); }
  std::span<const float> values(int64_t sample) const override { return whole_->values(in_whole(sample)); }
  bool labelled() const override { return whole_->labelled(); }
  const std::vector<std::string>& label_names() const override { return whole_->label_names(); }
  std::span<const int32_t> lengths() const override { return lengths_; }
  std::span<const int32_t> target_counts() const override { return target_counts_; }
  const std::vector<InvalidRow>& invalid_rows() const override { return no_rows_; }
  bool truncated(int64_t sample) const override { return whole_->truncated(in_whole(sample)); }
  int64_t truncated_samples() const override { return truncated_samples_; }
  std::span<const int64_t> pack_begins() const override { return grouping_.pack_begins; }
  const TokenStore& unpacked() const override { return grouping_.changed ? *whole_ : *this; }
  const std::string& content_hash() const override { return content_hash_; }

 private:
  int64_t in_whole(int64_t sample) const { return samples_[static_cast<size_t>(sample)]; }

  std::shared_ptr<const TokenStore> whole_;
  std::vector<int64_t> samples_;
  Grouping grouping_;
  int64_t truncated_samples_ = 0;
  std::vector<int32_t> lengths_;
  std::vector<int32_t> target_counts_;
  std::vector<InvalidRow> no_rows_;
  std::string content_hash_;
};

}  // namespace neoloom::data
