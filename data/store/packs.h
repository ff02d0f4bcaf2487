// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "data/token_store.h"

namespace neoloom::data {

/// Whether samples of these files share packs: data.pack says so, or leaves it open and all files are plain text.
/// Throws: Error(kData) for files that cannot be read.
bool uses_packs(const StoreRequest& request);

/// Puts the samples of a store into packs of at most `pack_tokens` tokens: the longest first, each into the fullest
/// pack that has room for it (best fit decreasing, TRL's "bfd"). Samples stay apart, as in any micro-batch; only batch
/// sizes count packs. A pack has its samples in the order of the store, and packs have the order of their first
/// samples. Returns `store` itself if each sample is alone in its pack.
std::shared_ptr<const TokenStore> pack_samples(std::shared_ptr<const TokenStore> store, int64_t pack_tokens);

/// "120 packs of up to 2048 tokens, 98.7 % full, hold 5000 samples"
std::string pack_summary(const TokenStore& store, int64_t pack_tokens);

}  // namespace neoloom::data
