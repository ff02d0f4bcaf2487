// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "model/batch/packing.h"
#include "model/gpt_neo/block.h"
#include "model/gpt_neo/heads.h"
#include "model/gpt_neo/network.h"
#include "model/model.h"

namespace neoloom::model {

// The operations that differ between CPU and GPU. block.cpp and heads.cpp hold the mathematics of a block and of the
// heads, and call these operations. cpu_backend.cpp and cuda_backend.cpp implement them; make_backend() chooses one.
//
// "Type of matmuls": type of the inputs of matmuls. On CPUs bfloat16 where packed GEMM computes in it, else fp32; on
// GPUs the compute dtype.

enum class GradDtype {
  kFp32,    // for LayerNorm
  kMatmul,  // for other matmuls; on GPUs fp32 where an adapter adds its part
};

/// The rows that the gradient of a residual connection has.
enum class ResidualRows {
  kSame,     // all rows of the norm's input
  kQueries,  // only those of RowSelection::query_index
};

/// The operations of one block on the rows of one micro-batch. Each reads and writes only its own members of `saved`.
/// n_site is the number of rows of a linear: N for k_proj and v_proj, else n.
class BlockOps {
 public:
  virtual ~BlockOps() = default;

  /// norm(x) in the type of matmuls. Shapes: x [n, h] fp32 -> [n, h]; `statistics` may be null.
  virtual at::Tensor layer_norm(const Norm& norm, const at::Tensor& x, Norm::Statistics* statistics) = 0;
  /// Returns the gradient of x, which is the input of norm(x) and of a residual connection with gradient d_residual
  /// (overwritten). Writes the norm's parameter gradients. Shapes: d_normed, x [n, h]; returns [n, h] fp32.
  virtual at::Tensor residual_norm_grad(const Norm& norm, const at::Tensor& d_normed, const at::Tensor& x,
                                        const Norm::Statistics& statistics, const at::Tensor& d_residual,
                                        ResidualRows rows) = 0;
  /// Whether forward keeps ln_1's output for backward; else backward recomputes it.
  virtual bool keeps_normed() const = 0;

  /// W x + b + adapter, for attention. Shapes: x [n_site, in] -> [n_site, out], type of matmuls.
  virtual at::Tensor project(LinearSite site, const at::Tensor& x, BlockSaved& saved) = 0;
  /// residual + W x + b + adapter. Shapes: x [n, in], residual [n, out] fp32 -> [n, out] fp32.
  virtual at::Tensor linear_add(LinearSite site, const at::Tensor& x, const at::Tensor& residual,
                                BlockSaved& saved) = 0;
  /// Sets saved.activation to that of c_fc(x). Returns gelu_new of c_fc(x) [n, ff] if the backend computes both at
  /// once; else undefined, and gelu() computes it.
  virtual at::Tensor linear_gelu(const at::Tensor& x, BlockSaved& saved) = 0;
  /// Returns gelu_new [n, ff] of its saved input (GeluKeeps::kInput).
  virtual at::Tensor gelu(const SavedGelu& saved) = 0;

  /// Writes the parameter gradients of a linear with input x; x may be undefined if the linear is frozen. Returns the
  /// gradient of x [n_site, in], undefined unless `needs_dx`. Shapes: dy [n_site, out].
  virtual at::Tensor linear_grad(LinearSite site, const at::Tensor& dy, const at::Tensor& x, const BlockSaved& saved,
                                 bool needs_dx, GradDtype dtype) = 0;
  /// The same for c_proj and the gelu_new before it. Returns the gradient of gelu_new's input [n, ff].
  virtual at::Tensor gelu_linear_grad(const at::Tensor& dy, const BlockSaved& saved, bool needs_d_pre) = 0;
  /// The same for k_proj, v_proj and q_proj together, with input `normed` [N, h]. Returns its gradient, fp32.
  virtual at::Tensor qkv_grad(const AttentionGradients& d, const at::Tensor& normed, const BlockSaved& saved,
                              bool needs_d_normed) = 0;

  /// Returns attention of saved.q, k, v: [n, h] in their type.
  virtual at::Tensor attention(BlockSaved& saved) = 0;
  /// Shapes: d_attended [n, h]; returns gradients in the type of q.
  virtual AttentionGradients attention_grad(const at::Tensor& d_attended, const BlockSaved& saved) = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  /// `block` and `rows` must outlive the result.
  virtual std::unique_ptr<BlockOps> block_ops(const Block& block, const RowSelection& rows) = 0;

  /// Logits of a causal LM in chunks of at most `chunk_rows` rows. `network` must outlive the result.
  virtual std::unique_ptr<LmHeadOps> lm_head_ops(const Network& network, int64_t chunk_rows) = 0;
  /// Returns the losses [n] of the rows of `logits` [n, C] fp32. Overwrites logits with their gradient, if wanted; see
  /// cross_entropy_rows.
  virtual at::Tensor cross_entropy(at::Tensor& logits, const at::Tensor& targets, const LossOptions& options) const = 0;
  /// x W^T in fp32. Shapes: x [n, in], weight [out, in] -> [n, out].
  virtual at::Tensor multiply(const at::Tensor& x, const Matrix& weight) = 0;

  /// Drops elements of a value in forward, and those of its gradient in backward: x * mask / (1 - probability). CPUs
  /// draw the mask by `keys` each time. GPUs draw it once, into `mask`, and take it from there when it is defined.
  /// Shapes: x [n, c] fp32, keys [n].
  virtual at::Tensor drop(const DropoutMask& dropout, const at::Tensor& x, const std::vector<RowKey>& keys,
                          at::Tensor& mask) const = 0;
  /// Adds NEFTune's noise to the token embeddings x [N, h] fp32 of a batch.
  virtual void add_noise(const EmbeddingNoise& noise, at::Tensor& x, const PackedBatch& batch) const = 0;

  /// For the log: the attention kernel of layers with this window (0: global).
  virtual std::string describe_attention(int64_t window) const = 0;
};

/// The only place that chooses between CPU and GPU.
std::unique_ptr<Backend> make_backend(const ModelSetup& setup);
std::unique_ptr<Backend> make_cuda_backend(const ModelSetup& setup);

}  // namespace neoloom::model
