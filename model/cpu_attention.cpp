// SPDX-License-Identifier: Apache-2.0
#include "model/cpu_attention.h"

#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

#include "model/cpu_kernels.h"

namespace neoloom::model {

namespace {

constexpr int64_t kTile = 64;        // queries, and keys, of a tile
constexpr int64_t kRowsStep = 16;    // a last tile of queries is filled up to a multiple of this
constexpr int64_t kLineFloats = 16;  // of a cache line

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

/// c [rows, columns] (+)= a [rows, depth] b [depth, columns], rows contiguous.
void multiply(int64_t rows, int64_t columns, int64_t depth, const float* a, int64_t a_stride, const float* b,
              int64_t b_stride, float* c, int64_t c_stride, bool add) {
  at::native::cpublas::brgemm(rows, columns, depth, a_stride, b_stride, c_stride, add, a, b, c, /*is_vnni=*/false);
}

}  // namespace

/// Some queries and the keys that any of them may see, in whole tiles of keys.
struct CpuHeadAttention::Tile {
  int64_t begin = 0;  // first query, among the queries
  int64_t rows = 0;
  int64_t padded_rows = 0;
  int64_t position = 0;   // of the first query, among the keys
  int64_t first_key = 0;  // a multiple of kTile
  int64_t keys = 0;       // a multiple of kTile
};

CpuHeadAttention::~CpuHeadAttention() { at::native::cpublas::brgemm_release(/*is_vnni=*/false); }

CpuHeadAttention::Tile CpuHeadAttention::tile_at(int64_t begin, int64_t query_rows, int64_t key_rows) const {
  Tile tile;
  tile.begin = begin;
  tile.rows = std::min(kTile, query_rows - begin);
  tile.padded_rows = round_up(tile.rows, kRowsStep);
  tile.position = key_rows - query_rows + begin;
  tile.first_key = window_ > 0 ? std::max<int64_t>(0, tile.position - window_ + 1) / kTile * kTile : 0;
  tile.keys = round_up(tile.position + tile.rows, kTile) - tile.first_key;
  return tile;
}

void CpuHeadAttention::reserve(int64_t key_rows, bool backward) {
  padded_keys_ = round_up(key_rows, kTile);
  // Few different strides, and none at which rows fall on the same cache sets.
  const int64_t widest = window_ > 0 ? std::min(padded_keys_, round_up(window_, kTile) + 2 * kTile) : padded_keys_;
  score_stride_ = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(widest))) + kLineFloats;
  const int64_t keys = padded_keys_ * head_size_;
  const int64_t tile = round_up(kTile * head_size_, kLineFloats);
  const int64_t scores = kTile * score_stride_;
  std::vector<std::pair<float**, int64_t>> parts = {
      {&k_columns_, keys}, {&queries_, tile}, {&result_, tile}, {&scores_, scores}};
  if (backward) {
    parts.insert(parts.end(), {{&v_columns_, keys},
                               {&k_rows_, keys},
                               {&dk_, keys},
                               {&dv_, keys},
                               {&grads_, tile},
                               {&turned_, kTile * kTile},
                               {&score_grads_, scores}});
  } else {
    parts.emplace_back(&v_rows_, keys);
  }
  int64_t needed = 0;
  for (const auto& part : parts) needed += part.second;
  if (!memory_.defined() || memory_.numel() < needed) {
    memory_ = at::empty({needed}, at::TensorOptions().dtype(at::kFloat));
  }
  float* next = memory_.mutable_data_ptr<float>();
  for (const auto& [part, count] : parts) {
    *part = next;
    next += count;
  }
}

/// packed [padded, d] = rows [begin, begin + count), then zeros.
void CpuHeadAttention::pack_rows(HeadRows rows, int64_t begin, int64_t count, int64_t padded, float* packed) const {
  for (int64_t row = 0; row < count; ++row) {
    std::copy_n(rows.values + (begin + row) * rows.stride, head_size_, packed + row * head_size_);
  }
  std::fill(packed + count * head_size_, packed + padded * head_size_, 0.0F);
}

/// panels [tiles of keys][d][64] = transposed tiles of rows, filled up with zeros.
void CpuHeadAttention::pack_columns(HeadRows rows, int64_t count, float* panels) const {
  for (int64_t begin = 0; begin < count; begin += kTile) {
    float* const panel = panels + begin * head_size_;
    const int64_t here = std::min(kTile, count - begin);
    cpu::transpose(rows.values + begin * rows.stride, rows.stride, here, head_size_, panel, kTile);
    if (here == kTile) continue;
    for (int64_t channel = 0; channel < head_size_; ++channel) {
      std::fill(panel + channel * kTile + here, panel + (channel + 1) * kTile, 0.0F);
    }
  }
}

/// scores_ = softmax of the tile's visible scores; zero elsewhere, also in the rows that fill the tile up.
void CpuHeadAttention::probabilities(const Tile& tile, HeadRows q) {
  pack_rows(q, tile.begin, tile.rows, tile.padded_rows, queries_);
  for (int64_t key = 0; key < tile.keys; key += kTile) {
    multiply(tile.padded_rows, kTile, head_size_, queries_, head_size_,
             k_columns_ + (tile.first_key + key) * head_size_, kTile, scores_ + key, score_stride_, false);
  }
  for (int64_t row = 0; row < tile.rows; ++row) {
    const int64_t end = tile.position + row + 1;
    const int64_t begin = window_ > 0 ? std::max<int64_t>(0, end - window_) : 0;
    cpu::softmax_range(scores_ + row * score_stride_, begin - tile.first_key, end - tile.first_key, tile.keys);
  }
  for (int64_t row = tile.rows; row < tile.padded_rows; ++row) {
    std::fill_n(scores_ + row * score_stride_, tile.keys, 0.0F);
  }
}

/// score_grads_ = gradient of the scores, from the probabilities in scores_.
void CpuHeadAttention::score_gradient(const Tile& tile, HeadRows grad) {
  pack_rows(grad, tile.begin, tile.rows, tile.padded_rows, grads_);
  for (int64_t key = 0; key < tile.keys; key += kTile) {
    multiply(tile.padded_rows, kTile, head_size_, grads_, head_size_, v_columns_ + (tile.first_key + key) * head_size_,
             kTile, score_grads_ + key, score_stride_, false);
  }
  for (int64_t row = 0; row < tile.rows; ++row) {
    const int64_t end = tile.position + row + 1;
    const int64_t begin = window_ > 0 ? std::max<int64_t>(0, end - window_) : 0;
    cpu::softmax_backward_range(scores_ + row * score_stride_, score_grads_ + row * score_stride_,
                                begin - tile.first_key, end - tile.first_key, tile.keys);
  }
}

void CpuHeadAttention::forward(HeadRows q, HeadRows k, HeadRows v, HeadRows out, int64_t query_rows, int64_t key_rows) {
  reserve(key_rows, /*backward=*/false);
  pack_columns(k, key_rows, k_columns_);
  pack_rows(v, 0, key_rows, padded_keys_, v_rows_);
  for (int64_t begin = 0; begin < query_rows; begin += kTile) {
    const Tile tile = tile_at(begin, query_rows, key_rows);
    probabilities(tile, q);
    for (int64_t key = 0; key < tile.keys; key += kTile) {
      multiply(tile.padded_rows, head_size_, kTile, scores_ + key, score_stride_,
               v_rows_ + (tile.first_key + key) * head_size_, head_size_, result_, head_size_, key > 0);
    }
    for (int64_t row = 0; row < tile.rows; ++row) {
      std::copy_n(result_ + row * head_size_, head_size_, out.values + (begin + row) * out.stride);
    }
  }
}

void CpuHeadAttention::backward(HeadRows grad, HeadRows q, HeadRows k, HeadRows v, Gradients out, int64_t query_rows,
                                int64_t key_rows) {
  reserve(key_rows, /*backward=*/true);
  pack_columns(k, key_rows, k_columns_);
  pack_columns(v, key_rows, v_columns_);
  pack_rows(k, 0, key_rows, padded_keys_, k_rows_);
  std::fill_n(dk_, padded_keys_ * head_size_, 0.0F);
  std::fill_n(dv_, padded_keys_ * head_size_, 0.0F);
  for (int64_t begin = 0; begin < query_rows; begin += kTile) {
    const Tile tile = tile_at(begin, query_rows, key_rows);
    probabilities(tile, q);
    score_gradient(tile, grad);
    for (int64_t key = 0; key < tile.keys; key += kTile) {
      const int64_t at_key = (tile.first_key + key) * head_size_;
      multiply(tile.padded_rows, head_size_, kTile, score_grads_ + key, score_stride_, k_rows_ + at_key, head_size_,
               result_, head_size_, key > 0);
      cpu::transpose(score_grads_ + key, score_stride_, tile.padded_rows, kTile, turned_, kTile);
      multiply(kTile, head_size_, tile.padded_rows, turned_, kTile, queries_, head_size_, dk_ + at_key, head_size_,
               true);
      cpu::transpose(scores_ + key, score_stride_, tile.padded_rows, kTile, turned_, kTile);
      multiply(kTile, head_size_, tile.padded_rows, turned_, kTile, grads_, head_size_, dv_ + at_key, head_size_, true);
    }
    for (int64_t row = 0; row < tile.rows; ++row) {
      std::copy_n(result_ + row * head_size_, head_size_, out.dq.values + (begin + row) * out.dq.stride);
    }
  }
  for (int64_t row = 0; row < key_rows; ++row) {
    std::copy_n(dk_ + row * head_size_, head_size_, out.dk.values + row * out.dk.stride);
    std::copy_n(dv_ + row * head_size_, head_size_, out.dv.values + row * out.dv.stride);
  }
}

}  // namespace neoloom::model
