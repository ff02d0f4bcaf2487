// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "data/options.h"
#include "data/token_store.h"

namespace neoloom::data {

/// A micro-batch in host memory, padded on the right to its longest sample.
struct PaddedBatch {
  std::vector<int64_t> sample_ids;  // [B]
  int64_t rows = 0;                 // B
  int64_t length = 0;               // T
  std::vector<int64_t> ids;         // [B, T], pads are pad_id
  std::vector<int64_t> lengths;     // [B] real tokens; an empty text counts as one pad token
  std::vector<int64_t> labels;      // single-label [B] (-1 unlabelled); causal LM [B, T], unshifted, -100 = no loss
  std::vector<float> multi_labels;  // multi-label [B, num_labels]
  int64_t tokens = 0;               // real tokens
};

/// Pads samples of a store. Pad labels are -100 by length, never by id.
PaddedBatch collate(const TokenStore& store, const std::vector<int64_t>& sample_ids, Task task,
                    ProblemType problem_type, int64_t pad_id);

/// Runs `next` (which returns the next batch, or nullopt at the end) on a thread of its own, `depth` batches ahead.
/// Owns: the thread; joined by the destructor. An exception in `next` is rethrown by pop().
class Prefetcher {
 public:
  Prefetcher(std::function<std::optional<PaddedBatch>()> next, int depth);
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;
  /// Blocks until a batch is ready; nullopt after the last.
  std::optional<PaddedBatch> pop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace neoloom::data
