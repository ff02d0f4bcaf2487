// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/_softmax.h>
#include <ATen/ops/_softmax_backward_data.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>

#include "model/cpu/aligned_rows.h"
#include "model/cpu/elementwise.h"
#include "model/cpu/matmul.h"
#include "model/cpu/packed_weights.h"
#include "model/cpu/parallel_tasks.h"
#include "model/cpu/tiled_attention.h"

namespace neoloom::model {

namespace {

template <typename Rows>
Rows rows_at(const at::Tensor& packed, int64_t row, int64_t channel) {
  // Casts away const, because one type of view serves tensors that are read and tensors that are written.
  auto* const values = static_cast<decltype(Rows::values)>(packed.data_ptr());
  return {values + row * packed.stride(0) + channel, packed.stride(0)};
}

}  // namespace

/// Describes some queries of a sample and the keys that any of them may see.
struct Attention::QueryChunk {
  int64_t query_begin = 0;  // rows of the packed queries
  int64_t query_rows = 0;
  int64_t key_begin = 0;  // rows of the packed keys
  int64_t key_rows = 0;
  int64_t first_distance = 0;  // position of the first query minus position of the first key
  int64_t first_query = 0;     // its token in the sample
  int64_t sample = 0;
  int64_t first_head = 0;
};

at::Tensor Attention::heads_first(const at::Tensor& rows, Heads heads) const {
  const int64_t size = rows.size(1) / num_heads_;
  return rows.narrow(1, heads.first * size, heads.count * size).view({rows.size(0), heads.count, size}).transpose(0, 1);
}

std::vector<Attention::QueryChunk> Attention::chunks_of(const SequenceSpan& segment) const {
  std::vector<QueryChunk> chunks;
  const int64_t first_position = segment.key_rows - segment.query_rows;
  for (int64_t begin = 0; begin < segment.query_rows; begin += kAttentionQueries) {
    const int64_t rows = std::min(kAttentionQueries, segment.query_rows - begin);
    const int64_t position = first_position + begin;
    const int64_t first_key = window_ > 0 ? std::max<int64_t>(0, position - window_ + 1) : 0;
    chunks.push_back({segment.query_begin + begin, rows, segment.key_begin + first_key, position + rows - first_key,
                      position - first_key, position, segment.sample});
  }
  return chunks;
}

bool attends_in_tiles(int64_t most_queries, int64_t most_keys) {
  // With few queries and many keys, packing the keys costs more than it saves. With few keys, tiles save many small
  // operators.
  constexpr int64_t kFewestQueries = 16;
  constexpr int64_t kFewKeys = 256;
  return has_packed_gemm(Dtype::kFloat32) && (most_queries >= kFewestQueries || most_keys <= kFewKeys);
}

/// Calls body(row, begin, end) for every row of scores [heads, queries, keys] with its visible keys.
template <typename Body>
void for_each_row(const at::Tensor& scores, const Attention::QueryChunk& chunk, int64_t window, Body body) {
  for (int64_t row = 0; row < scores.size(0) * chunk.query_rows; ++row) {
    const int64_t end = chunk.first_distance + row % chunk.query_rows + 1;
    body(row, window > 0 ? std::max<int64_t>(0, end - window) : 0, end);
  }
}

at::Tensor Attention::hidden_keys(const QueryChunk& chunk, const at::TensorOptions& options) const {
  const at::Tensor distance = at::arange(chunk.first_distance, chunk.first_distance + chunk.query_rows, options)
                                  .unsqueeze(1)
                                  .sub(at::arange(chunk.key_rows, options));  // [queries, keys], query - key
  at::Tensor hidden = distance.lt(0);
  return window_ > 0 ? hidden.logical_or(distance.ge(window_)) : hidden;
}

at::Tensor Attention::probabilities(const at::Tensor& q, const at::Tensor& k, const QueryChunk& chunk) const {
  at::Tensor scores = at::bmm(q, k.transpose(1, 2));  // [H, queries, keys]
  if (on_cpu(scores)) {
    float* const values = scores.mutable_data_ptr<float>();
    const int64_t width = chunk.key_rows;
    for_each_row(scores, chunk, window_, [&](int64_t row, int64_t begin, int64_t end) {
      cpu::softmax_range(values + row * width, begin, end, width);
    });
    return scores;
  }
  // Every query sees itself, so no row is empty.
  scores.masked_fill_(hidden_keys(chunk, scores.options().dtype(at::kLong)), -std::numeric_limits<float>::infinity());
  return at::_softmax(scores, -1, /*half_to_float=*/false);
}

at::Tensor Attention::score_gradient(at::Tensor dp, const at::Tensor& p, const QueryChunk& chunk) const {
  if (!on_cpu(dp)) return at::_softmax_backward_data(dp, p, -1, at::kFloat);
  float* const gradient = dp.mutable_data_ptr<float>();
  const float* const probability = p.const_data_ptr<float>();
  const int64_t width = chunk.key_rows;
  for_each_row(dp, chunk, window_, [&](int64_t row, int64_t begin, int64_t end) {
    cpu::softmax_backward_range(probability + row * width, gradient + row * width, begin, end, width);
  });
  return dp;
}

/// Returns what dropout multiplies the probabilities by: [heads, queries, keys].
at::Tensor Attention::dropout_factors(const at::Tensor& p, const QueryChunk& chunk) const {
  if (!on_cpu(p)) return dropout_.draw_on_cuda(p, chunk.sample, chunk.first_query);
  at::Tensor factors = at::zeros_like(p);
  float* const values = factors.mutable_data_ptr<float>();
  const int64_t first_key = chunk.first_query - chunk.first_distance;
  for_each_row(p, chunk, window_, [&](int64_t row, int64_t begin, int64_t end) {
    const int64_t head = chunk.first_head + row / chunk.query_rows;
    const RowKey query{chunk.sample, chunk.first_query + row % chunk.query_rows};
    dropout_.draw(query, head, first_key + begin, first_key + end, values + row * chunk.key_rows + begin);
  });
  return factors;
}

/// Calls body(chunk, queries, keys) for every chunk of queries; queries(x) and keys(x) return its rows of x in heads.
template <typename Body>
void Attention::for_each_chunk(const std::vector<SequenceSpan>& segments, bool on_cpu, Body body) const {
  const auto attend = [&](const SequenceSpan& segment, Heads heads) {
    for (QueryChunk& chunk : chunks_of(segment)) {
      chunk.first_head = heads.first;
      const auto queries = [&](const at::Tensor& x) {
        return heads_first(x.narrow(0, chunk.query_begin, chunk.query_rows), heads);
      };
      const auto keys = [&](const at::Tensor& x) {
        return heads_first(x.narrow(0, chunk.key_begin, chunk.key_rows), heads);
      };
      body(chunk, queries, keys);
    }
  };
  if (!on_cpu) {
    for (const SequenceSpan& segment : segments) attend(segment, {0, num_heads_});
    return;
  }
  // A task is one head of one sample: its scores stay in the cache, and the threads synchronize once for the whole
  // batch.
  const int64_t tasks = static_cast<int64_t>(segments.size()) * num_heads_;
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      attend(segments[static_cast<size_t>(task / num_heads_)], {task % num_heads_, 1});
    }
  });
}

bool Attention::in_tiles(const at::Tensor& q, const std::vector<SequenceSpan>& segments) const {
  int64_t most_queries = 0;
  int64_t most_keys = 0;
  for (const SequenceSpan& segment : segments) {
    most_queries = std::max(most_queries, segment.query_rows);
    most_keys = std::max(most_keys, segment.key_rows);
  }
  return on_cpu(q) && !dropout_.active() && attends_in_tiles(most_queries, most_keys);
}

Dtype Attention::tile_inputs() const { return cpu_compute_dtype(inputs_); }

std::string Attention::cpu_kernel() const {
  if (!has_packed_gemm(Dtype::kFloat32)) return "batched matmuls in float32";
  return "tiled, matmuls in " + dtype_name(tile_inputs());
}

template <typename Body>
void Attention::for_each_tiled_head(int64_t channels, const std::vector<SequenceSpan>& segments, Body body) const {
  const int64_t head_size = channels / num_heads_;
  const auto run = [&](auto element) {
    parallel_tasks(static_cast<int64_t>(segments.size()) * num_heads_, [&](const auto& next) {
      CpuHeadAttention<decltype(element)> head(head_size, window_);
      for (int64_t task = next(); task >= 0; task = next()) {
        body(head, segments[static_cast<size_t>(task / num_heads_)], task % num_heads_ * head_size);
      }
    });
  };
  if (tile_inputs() == Dtype::kBFloat16) {
    run(at::BFloat16());
  } else {
    run(float());
  }
}

at::Tensor Attention::forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const std::vector<SequenceSpan>& segments) const {
  RECORD_USER_SCOPE("attention forward");
  const bool tiled = in_tiles(q, segments);
  const at::ScalarType type = tiled ? scalar_type(tile_inputs()) : at::kFloat;
  if (q.scalar_type() != type)
    return forward(rows_as(q, type), rows_as(k, type), rows_as(v, type), segments).to(q.scalar_type());
  at::Tensor out = empty_rows(q.size(0), q.size(1), q.options());
  if (tiled) {
    for_each_tiled_head(q.size(1), segments, [&](auto& head, const SequenceSpan& segment, int64_t channel) {
      using Rows = typename std::decay_t<decltype(head)>::Rows;
      const auto rows = [&](const at::Tensor& packed, int64_t row) { return rows_at<Rows>(packed, row, channel); };
      head.forward(rows(q, segment.query_begin), rows(k, segment.key_begin), rows(v, segment.key_begin),
                   rows(out, segment.query_begin), segment.query_rows, segment.key_rows);
    });
    return out;
  }
  for_each_chunk(segments, on_cpu(q), [&](const QueryChunk& chunk, const auto& queries, const auto& keys) {
    at::Tensor p = probabilities(queries(q), keys(k), chunk);
    if (dropout_.active()) p.mul_(dropout_factors(p, chunk));
    queries(out).copy_(at::bmm(p, keys(v)));
  });
  return out;
}

AttentionGradients Attention::backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                       const at::Tensor& v, const std::vector<SequenceSpan>& segments) const {
  RECORD_USER_SCOPE("attention backward");
  const bool tiled = in_tiles(q, segments);
  const at::ScalarType type = tiled ? scalar_type(tile_inputs()) : at::kFloat;
  if (q.scalar_type() != type) {
    const auto rows = [type](const at::Tensor& x) { return rows_as(x, type); };
    const AttentionGradients d = backward(rows(grad), rows(q), rows(k), rows(v), segments);
    return {d.dq.to(q.scalar_type()), d.dk.to(q.scalar_type()), d.dv.to(q.scalar_type())};
  }
  if (tiled) {
    const auto like = [](const at::Tensor& x) { return empty_rows(x.size(0), x.size(1), x.options()); };
    AttentionGradients out{like(q), like(k), like(v)};
    for_each_tiled_head(q.size(1), segments, [&](auto& head, const SequenceSpan& segment, int64_t channel) {
      using Rows = typename std::decay_t<decltype(head)>::Rows;
      const auto rows = [&](const at::Tensor& packed, int64_t row) { return rows_at<Rows>(packed, row, channel); };
      const int64_t queries = segment.query_begin;
      const int64_t keys = segment.key_begin;
      head.backward(rows(grad, queries), rows(q, queries), rows(k, keys), rows(v, keys),
                    {rows(out.dq, queries), rows(out.dk, keys), rows(out.dv, keys)}, segment.query_rows,
                    segment.key_rows);
    });
    return out;
  }
  AttentionGradients out{at::empty_like(q), at::zeros_like(k), at::zeros_like(v)};
  for_each_chunk(segments, on_cpu(q), [&](const QueryChunk& chunk, const auto& queries, const auto& keys) {
    const at::Tensor p = probabilities(queries(q), keys(k), chunk);
    at::Tensor dp = at::bmm(queries(grad), keys(v).transpose(1, 2));
    at::Tensor kept = p;
    if (dropout_.active()) {
      const at::Tensor factors = dropout_factors(p, chunk);
      kept = p.mul(factors);
      dp.mul_(factors);
    }
    const at::Tensor ds = score_gradient(std::move(dp), p, chunk);
    keys(out.dv).add_(at::bmm(kept.transpose(1, 2), queries(grad)));
    keys(out.dk).add_(at::bmm(ds.transpose(1, 2), queries(q)));
    queries(out.dq).copy_(at::bmm(ds, keys(k)));
  });
  return out;
}

}  // namespace neoloom::model
