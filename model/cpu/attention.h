// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "model/batch/rows.h"
#include "model/cpu/attention_dropout.h"
#include "model/options.h"

namespace neoloom::model {

/// Queries of a sample whose scores are in memory at once where attention uses batched matmuls.
inline constexpr int64_t kAttentionQueries = 128;

/// Whether the CPU uses tiled attention (tiled_attention.h) for a batch whose samples have at most these numbers of
/// queries and keys.
bool attends_in_tiles(int64_t most_queries, int64_t most_keys);

struct AttentionGradients {
  at::Tensor dq;  // [queries, h]
  at::Tensor dk;  // [keys, h]
  at::Tensor dv;  // [keys, h]
};

/// GPT-Neo's attention: scale 1, causal, softmax in fp32; local layers see the token itself and the window - 1 before
/// it. Works on chunks of queries and skips keys that no query of a chunk may see: memory is O(T x queries of a chunk),
/// and a local layer costs O(T x window). backward recomputes the probabilities and what dropout makes of them.
class Attention {
 public:
  /// `window` 0: global. `on_cuda`: use only ATen operators; else also the CPU kernels here, whose GEMMs read `inputs`.
  Attention(int64_t num_heads, int64_t window, bool on_cuda = false, Dtype inputs = Dtype::kFloat32)
      : num_heads_(num_heads), window_(window), on_cuda_(on_cuda), inputs_(inputs) {}

  /// Training with dropout of the probabilities: batched matmuls, never tiles.
  void set_dropout(const AttentionDropout& dropout) { dropout_ = dropout; }

  int64_t num_heads() const { return num_heads_; }
  int64_t window() const { return window_; }

  /// The CPU's implementation, for the log.
  std::string cpu_kernel() const;

  /// Shapes: q [queries, h], k, v [keys, h], all fp32 or bfloat16; returns [queries, h] in that type.
  at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const std::vector<SequenceSpan>& segments) const;

  /// `grad` [queries, h] is the gradient of forward's result.
  AttentionGradients backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const std::vector<SequenceSpan>& segments) const;

  struct QueryChunk;  // some queries of a segment with the keys they may see

 private:
  struct Heads {
    int64_t first = 0;
    int64_t count = 0;
  };
  template <typename Body>
  void for_each_chunk(const std::vector<SequenceSpan>& segments, bool on_cpu, Body body) const;
  bool on_cpu(const at::Tensor& x) const { return x.is_cpu() && !on_cuda_; }
  /// [rows, h] -> [heads, rows, d], a view.
  at::Tensor heads_first(const at::Tensor& rows, Heads heads) const;
  std::vector<QueryChunk> chunks_of(const SequenceSpan& segment) const;
  /// Whether CpuHeadAttention computes this. Depends on CPU and lengths only, so ranks with equal CPUs agree.
  bool in_tiles(const at::Tensor& q, const std::vector<SequenceSpan>& segments) const;
  Dtype tile_inputs() const;
  template <typename Body>
  void for_each_tiled_head(int64_t channels, const std::vector<SequenceSpan>& segments, Body body) const;
  at::Tensor hidden_keys(const QueryChunk& chunk, const at::TensorOptions& options) const;
  at::Tensor score_gradient(at::Tensor dp, const at::Tensor& p, const QueryChunk& chunk) const;
  at::Tensor dropout_factors(const at::Tensor& p, const QueryChunk& chunk) const;
  at::Tensor probabilities(const at::Tensor& q, const at::Tensor& k, const QueryChunk& chunk) const;

  int64_t num_heads_;
  int64_t window_;
  bool on_cuda_;
  Dtype inputs_;
  AttentionDropout dropout_;
};

}  // namespace neoloom::model
