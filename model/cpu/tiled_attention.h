// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/cpu/gemm_microkernel.h"

namespace neoloom::model {

/// Queries of a tile, and also its keys.
inline constexpr int64_t kAttentionTile = 64;

/// Rows of one head of one sample inside a packed tensor [rows, h].
template <typename Element>
using HeadRows = Operand<Element>;

/// Attention of one head of one sample on the microkernel (gemm_microkernel.h): tiles of 64 queries by 64 keys. Skips
/// tiles in which no query may see a key. Its GEMMs have few shapes whatever lengths the samples have, so oneDNN
/// compiles few kernels. `Element`, float or at::BFloat16, is the type of inputs, outputs and GEMM operands; scores,
/// softmax and sums are fp32. One object per thread, which reuses its memory.
template <typename Element>
class CpuHeadAttention {
 public:
  using Rows = HeadRows<Element>;

  /// `window` 0: global.
  CpuHeadAttention(int64_t head_size, int64_t window);
  ~CpuHeadAttention();
  CpuHeadAttention(const CpuHeadAttention&) = delete;
  CpuHeadAttention& operator=(const CpuHeadAttention&) = delete;

  /// The queries are the last `query_rows` of the `key_rows` tokens. `out` is overwritten.
  void forward(Rows q, Rows k, Rows v, Rows out, int64_t query_rows, int64_t key_rows);

  struct Gradients {
    Rows dq, dk, dv;  // overwritten
  };
  /// `grad` is the gradient of `out`.
  void backward(Rows grad, Rows q, Rows k, Rows v, Gradients out, int64_t query_rows, int64_t key_rows);

 private:
  struct Tile;

  Tile tile_at(int64_t begin, int64_t query_rows, int64_t key_rows) const;
  void reserve(int64_t key_rows, bool backward);
  int64_t lay_out(float* base, bool backward);
  void pack_left(Rows rows, int64_t count, int64_t padded, Element* packed) const;
  void pack_columns(Rows rows, int64_t count, Element* packed);
  void pack_rows(Rows rows, int64_t count, int64_t padded, Element* packed) const;
  const Element* left_of_scores(const Tile& tile, const float* scores);
  const Element* transposed(const Tile& tile, const float* scores);
  void multiply_by_columns(const Tile& tile, const Element* left, const Element* columns, float* out) const;
  void probabilities(const Tile& tile, Rows q);
  void score_gradient(const Tile& tile, Rows grad);
  void sum_over_keys(const Tile& tile, const float* scores, const Element* rows, Rows out);

  int64_t head_size_;
  int64_t depth_;  // head_size_, rounded up to even where GEMMs read pairs of rows
  int64_t window_;
  int64_t padded_keys_ = 0;  // rounded up to whole tiles
  int64_t score_stride_ = 0;
  at::Tensor memory_;
  // Parts of memory_, see lay_out. Packed tiles of keys: "columns" are operands B x^T, "rows" are operands B x.
  Element *k_columns_ = nullptr, *v_columns_ = nullptr, *k_rows_ = nullptr, *v_rows_ = nullptr;
  Element *queries_ = nullptr, *padded_tile_ = nullptr, *grads_ = nullptr, *query_rows_ = nullptr,
          *grad_rows_ = nullptr;
  Element *left_ = nullptr, *transposed_left_ = nullptr;
  float *dk_ = nullptr, *dv_ = nullptr, *result_ = nullptr, *transposed_ = nullptr;
  float *scores_ = nullptr, *score_grads_ = nullptr;
};

extern template class CpuHeadAttention<float>;
extern template class CpuHeadAttention<at::BFloat16>;

}  // namespace neoloom::model
