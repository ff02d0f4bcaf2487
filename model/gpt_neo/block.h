// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <vector>

#include "model/batch/rows.h"
#include "model/cpu/attention.h"
#include "model/cuda/attention.h"
#include "model/gpt_neo/linear.h"
#include "model/lora/lora_cuda.h"
#include "model/lora/target_modules.h"

namespace neoloom::model {

class Backend;
class BlockOps;

/// What forward keeps for backward. GELU outputs, probabilities and, on CPUs, LayerNorm outputs are recomputed.
/// "Type of matmuls": see backend.h; the rest is fp32.
struct BlockSaved {
  at::Tensor x;  // [N, h] input of ln_1
  Norm::Statistics ln_1;
  at::Tensor normed;    // [N, h] type of matmuls, ln_1's output; kept if backend and training need it
  at::Tensor q;         // [n, h] type of matmuls
  at::Tensor k, v;      // [N, h] type of matmuls
  at::Tensor attended;  // [n, h] type of matmuls, input of out_proj
  at::Tensor middle;    // [n, h] input of ln_2
  Norm::Statistics ln_2;
  SavedGelu activation;                  // [n, ff] type of matmuls; on CPUs as forward_activated leaves it
  std::array<AdapterSaved, 6> adapters;  // in the order of LinearSite
  at::Tensor attention_mask, mlp_mask;   // [n, h] bool: what resid_dropout kept; GPUs only
  AttentionSaved attention;              // of kernels that save something

  AdapterSaved& adapter(LinearSite site) { return adapters[static_cast<size_t>(site)]; }
  const AdapterSaved& adapter(LinearSite site) const { return adapters[static_cast<size_t>(site)]; }

  /// Returns a copy with only what Block::recompute needs: the block's input, and masks and what adapters saved.
  BlockSaved inputs() const;
};

/// One transformer block of GPT-Neo and its gradients, written once for all backends:
///   middle = x + drop(out_proj(attention(q, k, v))),   q, k, v = q_proj, k_proj, v_proj of ln_1(x)
///   y      = middle + drop(c_proj(gelu_new(c_fc(ln_2(middle)))))
/// drop() is resid_dropout, in training only; so is attention_dropout, of the probabilities inside attention().
struct Block {
  Norm ln_1, ln_2;
  std::array<Linear, 6> linears;  // in the order of LinearSite
  Attention attention{1, 0};
  AttentionKernel attention_kernel = AttentionKernel::kMath;  // on GPUs

  Linear& operator[](LinearSite site) { return linears[static_cast<size_t>(site)]; }
  const Linear& operator[](LinearSite site) const { return linears[static_cast<size_t>(site)]; }

  /// Shapes: x [N, h] -> [n, h]; `saved` may be null.
  at::Tensor forward(Backend& backend, const at::Tensor& x, const RowSelection& rows, BlockSaved* saved) const;

  /// Recomputes `saved` from its inputs(), with the bits of forward. CPUs draw the dropout masks again by their keys;
  /// on GPUs inputs() hold what the adapters saved.
  void recompute(Backend& backend, const RowSelection& rows, BlockSaved& saved) const;

  /// Writes the block's parameter gradients. Shapes: dy [n, h] (overwritten) -> gradient of x [N, h], undefined unless
  /// `needs_dx`.
  at::Tensor backward(Backend& backend, const at::Tensor& dy, const RowSelection& rows, const BlockSaved& saved,
                      bool needs_dx) const;

  bool trains() const { return attention_trains() || mlp_trains(); }
  bool trains(LinearSite site) const { return (*this)[site].trains(); }
  bool trains_matrix(LinearSite site) const { return (*this)[site].trains_matrix(); }
  bool inputs_train() const {
    return trains(LinearSite::kQProj) || trains(LinearSite::kKProj) || trains(LinearSite::kVProj) || ln_1.trains();
  }

 private:
  bool attention_trains() const { return inputs_train() || trains(LinearSite::kOutProj); }
  bool mlp_trains() const { return trains(LinearSite::kCFc) || trains(LinearSite::kCProj) || ln_2.trains(); }

  /// What runs a pass: the backend, its operations on this block, and the rows.
  struct Pass {
    Backend& backend;
    BlockOps& ops;
    const RowSelection& rows;
  };
  at::Tensor up_to_activation(const Pass& pass, BlockSaved& saved) const;
  at::Tensor add_output(const Pass& pass, LinearSite site, const at::Tensor& x, const at::Tensor& residual,
                        BlockSaved& saved) const;
  at::Tensor output_grad(const Pass& pass, LinearSite site, const at::Tensor& dy, at::Tensor mask) const;
  at::Tensor mlp_backward(const Pass& pass, const at::Tensor& dy, const BlockSaved& saved, bool needs_d_middle) const;
  at::Tensor attention_backward(const Pass& pass, const at::Tensor& d_middle, const BlockSaved& saved,
                                bool needs_dx) const;
  at::Tensor inputs_backward(BlockOps& ops, const at::Tensor& d_attended, const BlockSaved& saved,
                             bool needs_d_normed) const;
};

}  // namespace neoloom::model
