// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace neoloom::model {

/// Names one row of a packed tensor independently of the micro-batch that it travels in.
struct RowKey {
  int64_t sample = 0;
  int64_t token = 0;
};

/// Queries and keys of one sample inside packed tensors: the queries are the LAST `query_rows` of its `key_rows`
/// tokens, so that the same code serves training (equal), the last token only (1) and decoding (the new tokens).
struct SequenceSpan {
  int64_t query_begin = 0;
  int64_t query_rows = 0;
  int64_t key_begin = 0;
  int64_t key_rows = 0;
};

/// The same for all samples of a micro-batch, as kernels over packed rows want it.
struct CuSeqlens {
  at::Tensor cu_seqlens_q;  // [B + 1] int32: where each sample's queries begin, then where the last end
  at::Tensor cu_seqlens_k;  // [B + 1] int32
  int64_t max_seqlen_q = 0;
  int64_t max_seqlen_k = 0;
  bool queries_are_keys = false;
  int64_t equal_samples = 0;  // samples, empty ones aside, where all are equally long; else 0

  bool defined() const { return cu_seqlens_q.defined(); }
};

/// In host memory, page-locked where it will travel to `device`. Shapes: segments [B], one after the other without
/// gaps. Throws: Error(kInternal) when there are gaps.
CuSeqlens cu_seqlens(const std::vector<SequenceSpan>& segments, const at::Device& device);

/// Which rows a block works on: packed real tokens, and per sample where its queries and keys lie.
struct RowSelection {
  std::vector<RowKey> key_rows;        // [N] names of all rows
  std::vector<SequenceSpan> segments;  // one per sample
  // The final block of a classifier: only these rows are wanted (the last token of each sample).
  at::Tensor query_index;          // [n] int64 rows among the N; undefined: all
  std::vector<RowKey> query_rows;  // [n] names of the wanted rows; empty: all
  CuSeqlens packed;                // of `segments`; GPUs only

  bool all_queries() const { return !query_index.defined(); }
  const std::vector<RowKey>& query_keys() const { return all_queries() ? key_rows : query_rows; }
};

/// The rows of x [N, c] that have queries: [n, c].
at::Tensor select_rows(const at::Tensor& x, const RowSelection& rows);

/// Adds the gradient of selected rows to that of all rows; each row is selected at most once.
void add_rows(at::Tensor& all, const at::Tensor& selected, const RowSelection& rows);

}  // namespace neoloom::model
