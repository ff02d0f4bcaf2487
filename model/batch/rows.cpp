// SPDX-License-Identifier: Apache-2.0
#include "model/batch/rows.h"

#include <ATen/ops/index_select.h>

#include <algorithm>

#include "model/batch/pinned.h"
#include "runtime/core/error.h"

namespace neoloom::model {

CuSeqlens cu_seqlens(const std::vector<SequenceSpan>& segments, const at::Device& device) {
  CuSeqlens packed;
  packed.queries_are_keys = true;
  std::vector<int32_t> queries = {0};
  std::vector<int32_t> keys = {0};
  for (const SequenceSpan& segment : segments) {
    core::require(segment.query_begin == queries.back() && segment.key_begin == keys.back(), core::ErrorKind::kInternal,
                  "packed batch: a sample begins at query {} and key {}, expected {} and {}", segment.query_begin,
                  segment.key_begin, queries.back(), keys.back());
    queries.push_back(static_cast<int32_t>(segment.query_begin + segment.query_rows));
    keys.push_back(static_cast<int32_t>(segment.key_begin + segment.key_rows));
    packed.max_seqlen_q = std::max(packed.max_seqlen_q, segment.query_rows);
    packed.max_seqlen_k = std::max(packed.max_seqlen_k, segment.key_rows);
    packed.queries_are_keys &= segment.query_rows == segment.key_rows;
  }
  const auto samples =
      std::count_if(segments.begin(), segments.end(), [](const SequenceSpan& s) { return s.key_rows > 0; });
  if (keys.back() == samples * packed.max_seqlen_k) packed.equal_samples = samples;
  packed.cu_seqlens_k = to_pinned(keys, {static_cast<int64_t>(keys.size())}, device);
  packed.cu_seqlens_q = to_pinned(queries, {static_cast<int64_t>(queries.size())}, device);
  return packed;
}

at::Tensor select_rows(const at::Tensor& x, const RowSelection& rows) {
  return rows.all_queries() ? x : at::index_select(x, 0, rows.query_index);
}

void add_rows(at::Tensor& all, const at::Tensor& selected, const RowSelection& rows) {
  if (rows.all_queries()) {
    all.add_(selected);
  } else {
    all.index_add_(0, rows.query_index, selected);
  }
}

}  // namespace neoloom::model
