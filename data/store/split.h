// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "data/token_store.h"

namespace neoloom::data {

/// Two parts of a store, each with the samples in the order of the store.
struct Split {
  std::shared_ptr<const TokenStore> train;
  std::shared_ptr<const TokenStore> validation;
};

/// Takes `share` of the samples, rounded up as scikit-learn's train_test_split does, for validation. With one label a
/// sample, each label gives its share, rounded so that the sum fits (largest remainder), and keeps one sample in train.
/// Which samples depends on the store's labels, `share` and `seed` alone. The windows of a row stay together and count
/// as one sample. The parts' content hashes cover all three; rows left out are counted by the whole store.
/// Throws: Error(kData) when a part would be empty.
Split split_store(const std::shared_ptr<const TokenStore>& store, double share, int64_t seed);

}  // namespace neoloom::data
