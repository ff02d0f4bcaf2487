// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace neoloom::model {

/// Rows of one head of one sample inside a packed tensor [rows, h].
struct HeadRows {
  float* values = nullptr;
  int64_t stride = 0;  // elements from one row to the next
};

/// Attention of one head of one sample on ATen's fp32 block kernel (see multiplies_panels): tiles of 64 queries by 64
/// keys, of which those that no query may see are skipped. All shapes of products come from a small set, so that the
/// kernel's compiled forms stay few whatever lengths the samples have. One object per thread; its memory is reused.
class CpuHeadAttention {
 public:
  /// `window` 0: global.
  CpuHeadAttention(int64_t head_size, int64_t window) : head_size_(head_size), window_(window) {}
  ~CpuHeadAttention();
  CpuHeadAttention(const CpuHeadAttention&) = delete;
  CpuHeadAttention& operator=(const CpuHeadAttention&) = delete;

  /// The queries are the last `query_rows` of the `key_rows` tokens. `out` is overwritten.
  void forward(HeadRows q, HeadRows k, HeadRows v, HeadRows out, int64_t query_rows, int64_t key_rows);

  struct Gradients {
    HeadRows dq, dk, dv;  // overwritten
  };
  /// `grad` is the gradient of `out`.
  void backward(HeadRows grad, HeadRows q, HeadRows k, HeadRows v, Gradients out, int64_t query_rows, int64_t key_rows);

 private:
  struct Tile;

  Tile tile_at(int64_t begin, int64_t query_rows, int64_t key_rows) const;
  void reserve(int64_t key_rows, bool backward);
  void pack_rows(HeadRows rows, int64_t begin, int64_t count, int64_t padded, float* packed) const;
  void pack_columns(HeadRows rows, int64_t count, float* panels) const;
  void probabilities(const Tile& tile, HeadRows q);
  void score_gradient(const Tile& tile, HeadRows grad);

  int64_t head_size_;
  int64_t window_;
  int64_t padded_keys_ = 0;  // whole tiles
  int64_t score_stride_ = 0;
  at::Tensor memory_;
  // Parts of memory_: see reserve.
  float *k_columns_ = nullptr, *v_columns_ = nullptr, *k_rows_ = nullptr, *v_rows_ = nullptr;
  float *dk_ = nullptr, *dv_ = nullptr;
  float *queries_ = nullptr, *grads_ = nullptr, *result_ = nullptr, *turned_ = nullptr;
  float *scores_ = nullptr, *score_grads_ = nullptr;
};

}  // namespace neoloom::model
