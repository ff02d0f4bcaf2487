// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <vector>

#include "model/batch/rows.h"
#include "model/cpu/attention.h"
#include "model/cpu/matmul.h"
#include "model/cuda/attention.h"
#include "model/gpt_neo/linear.h"
#include "model/lora/lora_cuda.h"

namespace neoloom::model {

/// What forward keeps for backward. GELU outputs, probabilities and, but for `normed`, LayerNorm outputs are
/// recomputed. "narrow": the type that products read, see Products::input_type and Products::narrowed; the rest is
/// fp32.
struct BlockSaved {
  at::Tensor x;  // [N, h] input of ln_1
  Norm::Statistics ln_1;
  at::Tensor normed;    // [N, h] narrow, ln_1's output: the device path, where it or what reads it trains
  at::Tensor q;         // [n, h] narrow
  at::Tensor k, v;      // [N, h] narrow
  at::Tensor attended;  // [n, h] narrow, input of out_proj
  at::Tensor middle;    // [n, h] input of ln_2
  Norm::Statistics ln_2;
  SavedGelu activation;                  // [n, ff] narrow; on the host as forward_activated leaves it
  std::array<AdapterSaved, 6> adapters;  // in the order of LinearSite
  AttentionSaved attention;              // device path

  /// What Block::fill makes the rest of.
  BlockSaved inputs() const;
};

/// What backward has to find out about a block: everything below the lowest trainable tensor is skipped.
struct BlockWants {
  bool dx = true;  // someone below needs the gradient of the block's input
};

/// Keys and values of the tokens decoded so far.
struct KeyValueCache {
  at::Tensor k, v;  // [max tokens, h] fp32
};

/// x = x + attention(ln_1(x)); x = x + c_proj(gelu(c_fc(ln_2(x)))).
struct Block {
  Norm ln_1, ln_2;
  Linear q_proj, k_proj, v_proj, out_proj, c_fc, c_proj;
  Attention attention{1, 0};
  AttentionKernel attention_kernel = AttentionKernel::kMath;  // of the device path

  /// Shapes: x [N, h] -> [n, h]; `saved` may be null.
  at::Tensor forward(Products& products, const at::Tensor& x, const RowPlan& rows, BlockSaved* saved) const;

  /// Everything of `saved` from its inputs(), with forward's bits: on the host masks are drawn again, by their keys; on
  /// the device path what adapters saved is there already.
  void fill(Products& products, const RowPlan& rows, BlockSaved& saved) const;

  /// Writes the block's parameter gradients. Shapes: dy [n, h] (overwritten) -> gradient of x [N, h], undefined unless
  /// wants.dx.
  at::Tensor backward(Products& products, const at::Tensor& dy, const RowPlan& rows, const BlockSaved& saved,
                      BlockWants wants) const;

  /// Forward of the next tokens of one sequence: x [n, h] at `position`; their keys and values join the cache.
  at::Tensor decode(Products& products, const at::Tensor& x, KeyValueCache& cache, int64_t position) const;

  bool trains() const { return attention_trains() || mlp_trains(); }

 private:
  class OnHost;    // host_block.cpp
  class OnDevice;  // the same formulas in fewer operators; device_block.cpp

  bool inputs_train() const {
    return q_proj.trains() || k_proj.trains() || v_proj.trains() || ln_1.weight_grad.defined();
  }
  bool attention_trains() const { return inputs_train() || out_proj.trains(); }
  bool mlp_trains() const { return c_fc.trains() || c_proj.trains() || ln_2.weight_grad.defined(); }

  at::Tensor host_forward(Products& products, const at::Tensor& x, const RowPlan& rows, BlockSaved& kept) const;
  void host_fill(Products& products, const RowPlan& rows, BlockSaved& saved) const;
  at::Tensor host_backward(Products& products, at::Tensor dy, const RowPlan& rows, const BlockSaved& saved,
                           BlockWants wants) const;
  at::Tensor device_forward(Products& products, const at::Tensor& x, const RowPlan& rows, BlockSaved& kept) const;
  void device_fill(Products& products, const RowPlan& rows, BlockSaved& saved) const;
  at::Tensor device_backward(Products& products, const at::Tensor& dy, const RowPlan& rows, const BlockSaved& saved,
                             BlockWants wants) const;
};

}  // namespace neoloom::model
