// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/tiled_attention.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <type_traits>

#include "model/cpu/elementwise.h"

namespace neoloom::model {

namespace {

constexpr int64_t kRowsStep = 16;    // a last tile of queries is filled up to a multiple of this
constexpr int64_t kLineFloats = 16;  // of one cache line

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

/// Number of rows of operand B that the VNNI layout interleaves.
template <typename Element>
constexpr int64_t kVnniRows = std::is_same_v<Element, float> ? 1 : 2;
template <typename Element>
constexpr bool kVnni = kVnniRows<Element> == 2;

/// Computes c [rows, columns] (+)= a [rows, depth] b [depth, columns]. c and a have row strides, b is packed.
template <typename Element>
void multiply(int64_t rows, int64_t columns, int64_t depth, const Element* a, int64_t a_stride, const Element* b,
              float* c, int64_t c_stride, bool add) {
  multiply_tile({rows, columns, depth}, {a, a_stride}, {b, columns}, {c, c_stride}, add);
}

uint16_t* bits_of(at::BFloat16* values) { return reinterpret_cast<uint16_t*>(values); }

/// Converts sums to elements.
void copy_sums(const cpu::Rows& rows, float* out, int64_t out_stride) { cpu::copy_rows(rows, out, out_stride); }
void copy_sums(const cpu::Rows& rows, at::BFloat16* out, int64_t out_stride) {
  cpu::copy_rows(rows, bits_of(out), out_stride);
}

void copy_elements(HeadRows<float> rows, int64_t count, int64_t width, float* out, int64_t out_stride) {
  cpu::copy_rows(cpu::Rows{rows.values, rows.stride, count, width}, out, out_stride);
}
void copy_elements(HeadRows<at::BFloat16> rows, int64_t count, int64_t width, at::BFloat16* out, int64_t out_stride) {
  cpu::copy_rows(cpu::LowpRows{bits_of(rows.values), rows.stride, count, width}, bits_of(out), out_stride);
}

/// Packs rows as operand B. The last row of an odd count is paired with zeros.
void pack_operand_b(HeadRows<float> rows, int64_t count, int64_t width, float* out) {
  copy_elements(rows, count, width, out, width);
}
void pack_operand_b(HeadRows<at::BFloat16> rows, int64_t count, int64_t width, at::BFloat16* out) {
  cpu::interleave_rows({bits_of(rows.values), rows.stride, count, width}, reinterpret_cast<uint32_t*>(out));
}

}  // namespace

/// Describes some queries and the keys that any of them may see, in whole tiles of keys.
template <typename Element>
struct CpuHeadAttention<Element>::Tile {
  int64_t begin = 0;  // first query, among the queries
  int64_t rows = 0;
  int64_t padded_rows = 0;
  int64_t position = 0;   // of the first query, among the keys
  int64_t first_key = 0;  // a multiple of kAttentionTile
  int64_t keys = 0;       // a multiple of kAttentionTile

  /// Calls body(row, begin, end) for every query with its visible keys among the tile's.
  template <typename Body>
  void for_each_row(int64_t window, Body body) const {
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t end = position + row + 1;
      const int64_t visible = window > 0 ? std::max<int64_t>(0, end - window) : 0;
      body(row, visible - first_key, end - first_key);
    }
  }
};

template <typename Element>
CpuHeadAttention<Element>::CpuHeadAttention(int64_t head_size, int64_t window)
    : head_size_(head_size), depth_(round_up(head_size, kVnniRows<Element>)), window_(window) {}

template <typename Element>
CpuHeadAttention<Element>::~CpuHeadAttention() {
  release_microkernel(kVnni<Element> ? Dtype::kBFloat16 : Dtype::kFloat32);
}

template <typename Element>
typename CpuHeadAttention<Element>::Tile CpuHeadAttention<Element>::tile_at(int64_t begin, int64_t query_rows,
                                                                            int64_t key_rows) const {
  Tile tile;
  tile.begin = begin;
  tile.rows = std::min(kAttentionTile, query_rows - begin);
  tile.padded_rows = round_up(tile.rows, kRowsStep);
  tile.position = key_rows - query_rows + begin;
  tile.first_key =
      window_ > 0 ? std::max<int64_t>(0, tile.position - window_ + 1) / kAttentionTile * kAttentionTile : 0;
  tile.keys = round_up(tile.position + tile.rows, kAttentionTile) - tile.first_key;
  return tile;
}

/// Places all parts of memory_ from `base` on and returns how many floats they take.
template <typename Element>
int64_t CpuHeadAttention<Element>::lay_out(float* base, bool backward) {
  int64_t used = 0;
  const auto take = [&](auto*& part, int64_t count) {
    using Part = std::remove_reference_t<decltype(*part)>;
    part = base == nullptr ? nullptr : reinterpret_cast<Part*>(base + used);
    used += round_up(count * static_cast<int64_t>(sizeof(Part)) / static_cast<int64_t>(sizeof(float)), kLineFloats);
  };
  const int64_t packed_elements = padded_keys_ * depth_;
  take(k_columns_, packed_elements);
  take(queries_, kAttentionTile * depth_);
  take(padded_tile_, kAttentionTile * depth_);
  take(result_, kAttentionTile * head_size_);
  take(scores_, kAttentionTile * score_stride_);
  if constexpr (kVnni<Element>) take(left_, kAttentionTile * score_stride_);
  if (!backward) {
    take(v_rows_, packed_elements);
    return used;
  }
  take(v_columns_, packed_elements);
  take(k_rows_, packed_elements);
  take(grads_, kAttentionTile * depth_);
  take(query_rows_, kAttentionTile * depth_);
  take(grad_rows_, kAttentionTile * depth_);
  take(dk_, padded_keys_ * head_size_);
  take(dv_, padded_keys_ * head_size_);
  take(transposed_, kAttentionTile * kAttentionTile);
  take(transposed_left_, kAttentionTile * kAttentionTile);
  take(score_grads_, kAttentionTile * score_stride_);
  return used;
}

template <typename Element>
void CpuHeadAttention<Element>::reserve(int64_t key_rows, bool backward) {
  padded_keys_ = round_up(key_rows, kAttentionTile);
  // The stride takes few values, for each of which oneDNN compiles a kernel, and none at which rows fall on the same
  // sets of the cache.
  const int64_t widest =
      window_ > 0 ? std::min(padded_keys_, round_up(window_, kAttentionTile) + 2 * kAttentionTile) : padded_keys_;
  score_stride_ = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(widest))) + kLineFloats;
  const int64_t needed = lay_out(nullptr, backward);
  if (!memory_.defined() || memory_.numel() < needed) {
    memory_ = at::empty({needed}, at::TensorOptions().dtype(at::kFloat));
  }
  lay_out(memory_.mutable_data_ptr<float>(), backward);
}

/// Packs rows as operand A [padded, depth], filled up with zeros.
template <typename Element>
void CpuHeadAttention<Element>::pack_left(Rows rows, int64_t count, int64_t padded, Element* packed) const {
  if (count < padded || head_size_ < depth_) std::fill_n(packed, padded * depth_, Element(0));
  copy_elements(rows, count, head_size_, packed, depth_);
}

/// Packs rows as operands B x^T: tiles of rows, transposed, filled up with zeros.
template <typename Element>
void CpuHeadAttention<Element>::pack_columns(Rows rows, int64_t count, Element* packed) {
  constexpr int64_t kPair = kVnniRows<Element>;
  for (int64_t begin = 0; begin < count; begin += kAttentionTile) {
    Element* const packed_tile = packed + begin * depth_;
    Rows source = rows.from(begin);
    const int64_t here = std::min(kAttentionTile, count - begin);
    if (here < kAttentionTile) std::fill_n(packed_tile, kAttentionTile * depth_, Element(0));
    if (head_size_ < depth_ || source.stride % kPair != 0) {
      pack_left(source, here, here, padded_tile_);
      source = {padded_tile_, depth_};
    }
    // Transposes pairs, because two neighbours of a row stay together.
    cpu::transpose(reinterpret_cast<const float*>(source.values), source.stride / kPair, here, depth_ / kPair,
                   reinterpret_cast<float*>(packed_tile), kAttentionTile);
  }
}

/// Packs rows as operand B [padded, head size], filled up with zeros.
template <typename Element>
void CpuHeadAttention<Element>::pack_rows(Rows rows, int64_t count, int64_t padded, Element* packed) const {
  pack_operand_b(rows, count, head_size_, packed);
  const int64_t written = round_up(count, kVnniRows<Element>) * head_size_;
  std::fill(packed + written, packed + padded * head_size_, Element(0));
}

/// Returns the tile's scores as operand A with stride score_stride_.
template <typename Element>
const Element* CpuHeadAttention<Element>::left_of_scores(const Tile& tile, const float* scores) {
  if constexpr (!kVnni<Element>) return scores;
  copy_sums({scores, score_stride_, tile.padded_rows, tile.keys}, left_, score_stride_);
  return left_;
}

/// Returns 64 columns of the tile's scores, transposed: operand A [64, padded rows] with stride kAttentionTile.
template <typename Element>
const Element* CpuHeadAttention<Element>::transposed(const Tile& tile, const float* scores) {
  cpu::transpose(scores, score_stride_, tile.padded_rows, kAttentionTile, transposed_, kAttentionTile);
  if constexpr (!kVnni<Element>) return transposed_;
  copy_sums({transposed_, kAttentionTile, kAttentionTile, tile.padded_rows}, transposed_left_, kAttentionTile);
  return transposed_left_;
}

/// Computes out [padded rows, the tile's keys], with score_stride_, = left [padded rows, depth] times columns.
template <typename Element>
void CpuHeadAttention<Element>::multiply_by_columns(const Tile& tile, const Element* left, const Element* columns,
                                                    float* out) const {
  for (int64_t key = 0; key < tile.keys; key += kAttentionTile) {
    multiply(tile.padded_rows, kAttentionTile, depth_, left, depth_, columns + (tile.first_key + key) * depth_,
             out + key, score_stride_, false);
  }
}

/// Sets scores_ to the softmax of the tile's visible scores, and to zero elsewhere, also in the rows that fill the tile
/// up.
template <typename Element>
void CpuHeadAttention<Element>::probabilities(const Tile& tile, Rows q) {
  pack_left(q.from(tile.begin), tile.rows, tile.padded_rows, queries_);
  multiply_by_columns(tile, queries_, k_columns_, scores_);
  tile.for_each_row(window_, [&](int64_t row, int64_t begin, int64_t end) {
    cpu::softmax_range(scores_ + row * score_stride_, begin, end, tile.keys);
  });
  for (int64_t row = tile.rows; row < tile.padded_rows; ++row) {
    std::fill_n(scores_ + row * score_stride_, tile.keys, 0.0F);
  }
}

/// Computes score_grads_, the gradient of the scores, from the probabilities in scores_.
template <typename Element>
void CpuHeadAttention<Element>::score_gradient(const Tile& tile, Rows grad) {
  pack_left(grad.from(tile.begin), tile.rows, tile.padded_rows, grads_);
  multiply_by_columns(tile, grads_, v_columns_, score_grads_);
  tile.for_each_row(window_, [&](int64_t row, int64_t begin, int64_t end) {
    cpu::softmax_backward_range(scores_ + row * score_stride_, score_grads_ + row * score_stride_, begin, end,
                                tile.keys);
  });
}

/// Computes the tile's rows of out = scores [rows, keys] times rows [keys, head size].
template <typename Element>
void CpuHeadAttention<Element>::sum_over_keys(const Tile& tile, const float* scores, const Element* rows, Rows out) {
  const Element* const left = left_of_scores(tile, scores);
  for (int64_t key = 0; key < tile.keys; key += kAttentionTile) {
    multiply(tile.padded_rows, head_size_, kAttentionTile, left + key, score_stride_,
             rows + (tile.first_key + key) * head_size_, result_, head_size_, key > 0);
  }
  copy_sums({result_, head_size_, tile.rows, head_size_}, out.from(tile.begin).values, out.stride);
}

template <typename Element>
void CpuHeadAttention<Element>::forward(Rows q, Rows k, Rows v, Rows out, int64_t query_rows, int64_t key_rows) {
  reserve(key_rows, /*backward=*/false);
  pack_columns(k, key_rows, k_columns_);
  pack_rows(v, key_rows, padded_keys_, v_rows_);
  for (int64_t begin = 0; begin < query_rows; begin += kAttentionTile) {
    const Tile tile = tile_at(begin, query_rows, key_rows);
    probabilities(tile, q);
    sum_over_keys(tile, scores_, v_rows_, out);
  }
}

template <typename Element>
void CpuHeadAttention<Element>::backward(Rows grad, Rows q, Rows k, Rows v, Gradients out, int64_t query_rows,
                                         int64_t key_rows) {
  reserve(key_rows, /*backward=*/true);
  pack_columns(k, key_rows, k_columns_);
  pack_columns(v, key_rows, v_columns_);
  pack_rows(k, key_rows, padded_keys_, k_rows_);
  std::fill_n(dk_, padded_keys_ * head_size_, 0.0F);
  std::fill_n(dv_, padded_keys_ * head_size_, 0.0F);
  for (int64_t begin = 0; begin < query_rows; begin += kAttentionTile) {
    const Tile tile = tile_at(begin, query_rows, key_rows);
    probabilities(tile, q);
    score_gradient(tile, grad);
    sum_over_keys(tile, score_grads_, k_rows_, out.dq);
    pack_rows(q.from(begin), tile.rows, tile.padded_rows, query_rows_);
    pack_rows(grad.from(begin), tile.rows, tile.padded_rows, grad_rows_);
    for (int64_t key = 0; key < tile.keys; key += kAttentionTile) {
      const int64_t at_key = (tile.first_key + key) * head_size_;
      multiply(kAttentionTile, head_size_, tile.padded_rows, transposed(tile, score_grads_ + key), kAttentionTile,
               query_rows_, dk_ + at_key, head_size_, true);
      multiply(kAttentionTile, head_size_, tile.padded_rows, transposed(tile, scores_ + key), kAttentionTile,
               grad_rows_, dv_ + at_key, head_size_, true);
    }
  }
  copy_sums({dk_, head_size_, key_rows, head_size_}, out.dk.values, out.dk.stride);
  copy_sums({dv_, head_size_, key_rows, head_size_}, out.dv.values, out.dv.stride);
}

template class CpuHeadAttention<float>;
template class CpuHeadAttention<at::BFloat16>;

}  // namespace neoloom::model
