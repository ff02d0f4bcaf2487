// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace neoloom::model {

/// Identifies a row of a packed tensor independently of its micro-batch.
struct RowKey {
  int64_t sample = 0;
  int64_t token = 0;
};

/// Where the queries and keys of one sample lie in packed tensors. The queries are the LAST `query_rows` of its
/// `key_rows` tokens: all of them in training, 1 for the last token only, the new tokens in decoding.
struct SequenceSpan {
  int64_t query_begin = 0;
  int64_t query_rows = 0;
  int64_t key_begin = 0;
  int64_t key_rows = 0;
  int64_t sample = 0;  // as in RowKey; for dropout of attention
};

/// The same for all samples of a micro-batch, in flash-attention's varlen form.
struct CuSeqlens {
  at::Tensor cu_seqlens_q;  // [B + 1] int32: where each sample's queries begin, then the total
  at::Tensor cu_seqlens_k;  // [B + 1] int32
  int64_t max_seqlen_q = 0;
  int64_t max_seqlen_k = 0;
  bool queries_are_keys = false;
  int64_t equal_samples = 0;  // number of non-empty samples if all have one length; else 0

  bool defined() const { return cu_seqlens_q.defined(); }
};

/// Makes CuSeqlens in host memory, which is pinned if `device` is a GPU. Shapes: segments [B], consecutive.
/// Throws: Error(kInternal) when there are gaps between segments.
CuSeqlens cu_seqlens(const std::vector<SequenceSpan>& segments, const at::Device& device);

/// The rows that a block works on: the packed real tokens, and where each sample's queries and keys lie.
struct RowSelection {
  std::vector<RowKey> key_rows;        // [N] keys of all rows
  std::vector<SequenceSpan> segments;  // one per sample
  // The last block of a classifier computes only these rows (the last token of each sample).
  at::Tensor query_index;          // [n] int64 rows among the N; undefined: all
  std::vector<RowKey> query_rows;  // [n] keys of these rows; empty: all
  CuSeqlens packed;                // of `segments`; GPUs only

  bool all_queries() const { return !query_index.defined(); }
  const std::vector<RowKey>& query_keys() const { return all_queries() ? key_rows : query_rows; }
};

/// Returns the rows of x [N, c] that have queries: [n, c].
at::Tensor select_rows(const at::Tensor& x, const RowSelection& rows);

/// Adds the gradient of selected rows to that of all rows; each row is selected at most once.
void add_rows(at::Tensor& all, const at::Tensor& selected, const RowSelection& rows);

}  // namespace neoloom::model
