// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "data/options.h"
#include "data/token_store.h"

namespace neoloom::data {

/// A micro-batch of B samples in host memory: their N tokens, concatenated without padding.
struct RaggedBatch {
  std::vector<int64_t> sample_ids;   // [B]
  std::vector<int64_t> cu_seqlens;   // [B + 1]: where each sample begins in `ids`, then N
  std::vector<int64_t> ids;          // [N]; a sample without tokens counts as one pad token
  std::vector<int64_t> target_rows;  // causal LM [n]: rows of `ids` whose next token is a target
  std::vector<int64_t> targets;      // causal LM [n]: those next tokens; single-label [B]: classes, -1 unlabelled
  std::vector<float> multi_labels;   // multi-label [B, num_labels]: 0 or 1
  std::vector<float> values;         // regression [B, num_labels]; NaN: unlabelled
};

/// Copies samples of a store to a micro-batch. Throws: Error(kInternal) for a sample that the store does not have.
RaggedBatch collate(const TokenStore& store, const std::vector<int64_t>& sample_ids, Task task, int64_t pad_id);

}  // namespace neoloom::data
