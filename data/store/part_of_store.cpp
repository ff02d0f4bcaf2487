// SPDX-License-Identifier: Apache-2.0
#include "data/store/part_of_store.h"

#include <utility>

#include "runtime/core/hash.h"

namespace neoloom::data {

PartOfStore::PartOfStore(std::shared_ptr<const TokenStore> whole, std::vector<int64_t> samples, const std::string& name,
                         Grouping grouping)
    : whole_(std::move(whole)), samples_(std::move(samples)), grouping_(std::move(grouping)) {
  for (const int64_t sample : samples_) {
    lengths_.push_back(whole_->lengths()[static_cast<size_t>(sample)]);
    target_counts_.push_back(whole_->target_counts()[static_cast<size_t>(sample)]);
    truncated_samples_ += whole_->truncated(sample) ? 1 : 0;
  }
  core::Sha256 hash;
  hash.add_field(whole_->content_hash());
  hash.add_field(name);
  content_hash_ = hash.hex();
}

}  // namespace neoloom::data
