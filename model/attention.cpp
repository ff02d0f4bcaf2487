// SPDX-License-Identifier: Apache-2.0
#include "model/attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/_softmax.h>
#include <ATen/ops/_softmax_backward_data.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>

#include "model/cpu_kernels.h"

namespace neoloom::model {

namespace {

constexpr int64_t kQueriesPerBlock = 128;
constexpr int64_t kRowsPerTask = 64;

/// [rows, h] -> [H, rows, d], a view.
at::Tensor heads_first(const at::Tensor& rows, int64_t num_heads) {
  return rows.view({rows.size(0), num_heads, rows.size(1) / num_heads}).transpose(0, 1);
}

}  // namespace

/// Some queries of a sample and the keys that any of them may see.
struct Attention::Block {
  int64_t query_begin = 0;  // rows of the packed queries
  int64_t query_rows = 0;
  int64_t key_begin = 0;  // rows of the packed keys
  int64_t key_rows = 0;
  int64_t first_distance = 0;  // position of the first query minus position of the first key
};

std::vector<Attention::Block> Attention::blocks_of(const Segment& segment) const {
  std::vector<Block> blocks;
  const int64_t first_position = segment.key_rows - segment.query_rows;
  for (int64_t begin = 0; begin < segment.query_rows; begin += kQueriesPerBlock) {
    const int64_t rows = std::min(kQueriesPerBlock, segment.query_rows - begin);
    const int64_t position = first_position + begin;
    const int64_t first_key = window_ > 0 ? std::max<int64_t>(0, position - window_ + 1) : 0;
    blocks.push_back({segment.query_begin + begin, rows, segment.key_begin + first_key, position + rows - first_key,
                      position - first_key});
  }
  return blocks;
}

/// Calls body(row, begin, end) for every row of scores [H, queries, keys] with its visible keys.
template <typename Body>
void for_each_row(int64_t heads, const Attention::Block& block, int64_t window, Body body) {
  at::parallel_for(0, heads * block.query_rows, kRowsPerTask, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t end = block.first_distance + row % block.query_rows + 1;
      body(row, window > 0 ? std::max<int64_t>(0, end - window) : 0, end);
    }
  });
}

at::Tensor Attention::hidden_keys(const Block& block, const at::TensorOptions& options) const {
  const at::Tensor distance = at::arange(block.first_distance, block.first_distance + block.query_rows, options)
                                  .unsqueeze(1)
                                  .sub(at::arange(block.key_rows, options));  // [queries, keys], query - key
  at::Tensor hidden = distance.lt(0);
  return window_ > 0 ? hidden.logical_or(distance.ge(window_)) : hidden;
}

at::Tensor Attention::probabilities(const at::Tensor& q, const at::Tensor& k, const Block& block) const {
  at::Tensor scores = at::bmm(q, k.transpose(1, 2));  // [H, queries, keys]
  if (scores.is_cpu()) {
    float* const values = scores.mutable_data_ptr<float>();
    const int64_t width = block.key_rows;
    for_each_row(num_heads_, block, window_, [&](int64_t row, int64_t begin, int64_t end) {
      cpu::softmax_range(values + row * width, begin, end, width);
    });
    return scores;
  }
  // Every query sees itself, so no row is empty.
  scores.masked_fill_(hidden_keys(block, scores.options().dtype(at::kLong)), -std::numeric_limits<float>::infinity());
  return at::_softmax(scores, -1, /*half_to_float=*/false);
}

at::Tensor Attention::score_gradient(at::Tensor dp, const at::Tensor& p, const Block& block) const {
  if (!dp.is_cpu()) return at::_softmax_backward_data(dp, p, -1, at::kFloat);
  float* const gradient = dp.mutable_data_ptr<float>();
  const float* const probability = p.const_data_ptr<float>();
  const int64_t width = block.key_rows;
  for_each_row(num_heads_, block, window_, [&](int64_t row, int64_t begin, int64_t end) {
    cpu::softmax_backward_range(probability + row * width, gradient + row * width, begin, end, width);
  });
  return dp;
}

at::Tensor Attention::forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const std::vector<Segment>& segments) const {
  at::Tensor out = at::empty_like(q);
  for (const Segment& segment : segments) {
    for (const Block& block : blocks_of(segment)) {
      const at::Tensor block_q = heads_first(q.narrow(0, block.query_begin, block.query_rows), num_heads_);
      const at::Tensor block_k = heads_first(k.narrow(0, block.key_begin, block.key_rows), num_heads_);
      const at::Tensor block_v = heads_first(v.narrow(0, block.key_begin, block.key_rows), num_heads_);
      const at::Tensor p = probabilities(block_q, block_k, block);
      heads_first(out.narrow(0, block.query_begin, block.query_rows), num_heads_).copy_(at::bmm(p, block_v));
    }
  }
  return out;
}

AttentionGradients Attention::backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                       const at::Tensor& v, const std::vector<Segment>& segments) const {
  AttentionGradients out{at::empty_like(q), at::zeros_like(k), at::zeros_like(v)};
  for (const Segment& segment : segments) {
    for (const Block& block : blocks_of(segment)) {
      const at::Tensor block_q = heads_first(q.narrow(0, block.query_begin, block.query_rows), num_heads_);
      const at::Tensor block_grad = heads_first(grad.narrow(0, block.query_begin, block.query_rows), num_heads_);
      const at::Tensor block_k = heads_first(k.narrow(0, block.key_begin, block.key_rows), num_heads_);
      const at::Tensor block_v = heads_first(v.narrow(0, block.key_begin, block.key_rows), num_heads_);
      const at::Tensor p = probabilities(block_q, block_k, block);
      const at::Tensor ds = score_gradient(at::bmm(block_grad, block_v.transpose(1, 2)), p, block);
      heads_first(out.dv.narrow(0, block.key_begin, block.key_rows), num_heads_)
          .add_(at::bmm(p.transpose(1, 2), block_grad));
      heads_first(out.dk.narrow(0, block.key_begin, block.key_rows), num_heads_)
          .add_(at::bmm(ds.transpose(1, 2), block_q));
      heads_first(out.dq.narrow(0, block.query_begin, block.query_rows), num_heads_).copy_(at::bmm(ds, block_k));
    }
  }
  return out;
}

}  // namespace neoloom::model
