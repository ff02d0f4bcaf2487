// SPDX-License-Identifier: Apache-2.0
#include "data/batching/ragged_batch.h"

#include <algorithm>

#include "runtime/core/error.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using core::require;

void add_tokens(const TokenStore& store, int64_t sample, int64_t pad_id, RaggedBatch& batch) {
  const auto ids = store.ids(sample);
  batch.ids.insert(batch.ids.end(), ids.begin(), ids.end());
  if (ids.empty()) batch.ids.push_back(pad_id);
  batch.cu_seqlens.push_back(static_cast<int64_t>(batch.ids.size()));
}

/// Adds the tokens behind the prompt, or those of a chat's answers, as targets. A sample's first token is no target,
/// because no row precedes it.
void add_next_tokens(const TokenStore& store, int64_t sample, int64_t begin, RaggedBatch& batch) {
  const auto ids = store.ids(sample);
  const auto add = [&](int32_t first, int32_t end) {
    for (int32_t at = std::max(1, first); at < end; ++at) {
      batch.target_rows.push_back(begin + at - 1);
      batch.targets.push_back(ids[static_cast<size_t>(at)]);
    }
  };
  const auto spans = store.target_spans(sample);
  if (spans.empty()) add(store.prompt_tokens(sample), static_cast<int32_t>(ids.size()));
  for (size_t i = 0; i < spans.size(); i += 2) add(spans[i], spans[i + 1]);
}

void add_labels(const TokenStore& store, int64_t sample, Task task, RaggedBatch& batch) {
  if (task == Task::kSingleLabel) {
    batch.targets.push_back(store.label(sample));
  } else if (task == Task::kRegression) {
    const auto values = store.values(sample);
    batch.values.insert(batch.values.end(), values.begin(), values.end());
  } else {
    const auto flags = store.multi_label(sample);
    batch.multi_labels.insert(batch.multi_labels.end(), flags.begin(), flags.end());
  }
}

}  // namespace

RaggedBatch collate(const TokenStore& store, const std::vector<int64_t>& sample_ids, Task task, int64_t pad_id) {
  require(pad_id >= 0, ErrorKind::kInternal, "pad id {}: expected an id with a row in the embedding", pad_id);
  RaggedBatch batch;
  batch.sample_ids = sample_ids;
  batch.cu_seqlens.push_back(0);
  for (const int64_t sample : sample_ids) {
    require(sample >= 0 && sample < store.size(), ErrorKind::kInternal, "sample {} of {} asked for", sample,
            store.size());
    const int64_t begin = batch.cu_seqlens.back();
    add_tokens(store, sample, pad_id, batch);
    if (task == Task::kCausalLm) {
      add_next_tokens(store, sample, begin, batch);
    } else {
      add_labels(store, sample, task, batch);
    }
  }
  return batch;
}

}  // namespace neoloom::data
