// SPDX-License-Identifier: Apache-2.0
// Runs a block on the CPU. Whatever follows a GEMM is its epilogue, done to each tile while it is in the cache. Tensors
// that only GEMMs read have the type of their inputs.
#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include "model/cpu/aligned_rows.h"
#include "model/cpu/cross_entropy.h"
#include "model/cpu/gelu.h"
#include "model/cpu/matmul.h"
#include "model/cuda/attention_choice.h"
#include "model/gpt_neo/backend.h"

namespace neoloom::model {

namespace {

using enum LinearSite;

class CpuBlockOps final : public BlockOps {
 public:
  CpuBlockOps(const Block& block, Matmul& matmul, const RowSelection& rows)
      : block_(block), matmul_(matmul), rows_(rows), type_(matmul.input_type(block[kCFc].weight)) {}

  at::Tensor layer_norm(const Norm& norm, const at::Tensor& x, Norm::Statistics* statistics) override {
    return norm.cpu_forward(x, statistics, type_);
  }

  at::Tensor residual_norm_grad(const Norm& norm, const at::Tensor& d_normed, const at::Tensor& x,
                                const Norm::Statistics& statistics, const at::Tensor& d_residual,
                                ResidualRows rows) override {
    const bool same = rows == ResidualRows::kSame || rows_.all_queries();
    at::Tensor dx = same ? d_residual : at::zeros_like(x);
    if (!same) add_rows(dx, d_residual, rows_);
    norm.cpu_add_gradient(d_normed, x, statistics, dx);
    return dx;
  }

  bool keeps_normed() const override { return false; }

  at::Tensor project(LinearSite site, const at::Tensor& x, BlockSaved& saved) override {
    return block_[site].forward(matmul_, x, keys(site), &saved.adapter(site).down, {}, type_);
  }

  at::Tensor linear_add(LinearSite site, const at::Tensor& x, const at::Tensor& residual, BlockSaved& saved) override {
    return block_[site].forward(matmul_, x, keys(site), &saved.adapter(site).down, residual);
  }

  at::Tensor linear_gelu(const at::Tensor& x, BlockSaved& saved) override {
    const GeluKeeps keeps = block_.trains_matrix(kCProj) ? GeluKeeps::kInput : GeluKeeps::kSlope;
    Matmul::Activated result = block_[kCFc].forward_activated(matmul_, x, keys(kCFc), keeps, &saved.adapter(kCFc).down);
    saved.activation = std::move(result.saved);
    return result.values;
  }

  at::Tensor gelu(const SavedGelu& saved) override {
    return rows_of_tiles(gelu_new(saved.values), block_[kCProj].weight.plain.size(1));
  }

  at::Tensor linear_grad(LinearSite site, const at::Tensor& dy, const at::Tensor& x, const BlockSaved& saved,
                         bool needs_dx, GradDtype dtype) override {
    return block_[site].backward(matmul_, {rows_as(dy, type_), x, saved.adapter(site).down}, keys(site), needs_dx,
                                 dtype == GradDtype::kFp32 ? at::kFloat : type_);
  }

  at::Tensor gelu_linear_grad(const at::Tensor& dy, const BlockSaved& saved, bool needs_d_pre) override {
    at::Tensor activated;
    if (block_.trains_matrix(kCProj)) activated = gelu(saved.activation);
    return block_[kCProj].backward(matmul_, {rows_as(dy, type_), activated, saved.adapter(kCProj).down}, keys(kCProj),
                                   needs_d_pre, type_, saved.activation);
  }

  at::Tensor qkv_grad(const AttentionGradients& d, const at::Tensor& normed, const BlockSaved& saved,
                      bool needs_d_normed) override;

  at::Tensor attention(BlockSaved& saved) override {
    return block_.attention.forward(saved.q, saved.k, saved.v, rows_.segments);
  }

  AttentionGradients attention_grad(const at::Tensor& d_attended, const BlockSaved& saved) override {
    return block_.attention.backward(d_attended, saved.q, saved.k, saved.v, rows_.segments);
  }

 private:
  const std::vector<RowKey>& keys(LinearSite site) const {
    return site == kKProj || site == kVProj ? rows_.key_rows : rows_.query_keys();
  }

  const Block& block_;
  Matmul& matmul_;
  const RowSelection& rows_;
  at::ScalarType type_;  // input type of matmuls
};

at::Tensor CpuBlockOps::qkv_grad(const AttentionGradients& d, const at::Tensor& normed, const BlockSaved& saved,
                                 bool needs_d_normed) {
  const at::Tensor query_input = normed.defined() ? select_rows(normed, rows_) : normed;
  const auto upstream = [&](LinearSite site, const at::Tensor& dy, const at::Tensor& x) {
    return Linear::Upstream{dy, x, saved.adapter(site).down};
  };
  at::Tensor d_normed = block_[kKProj].backward(matmul_, upstream(kKProj, d.dk, normed), keys(kKProj), needs_d_normed);
  at::Tensor* const sum = needs_d_normed ? &d_normed : nullptr;
  block_[kVProj].backward_into(matmul_, upstream(kVProj, d.dv, normed), keys(kVProj), sum);
  const Linear::Upstream query = upstream(kQProj, d.dq, query_input);
  if (rows_.all_queries()) {
    block_[kQProj].backward_into(matmul_, query, keys(kQProj), sum);
    return d_normed;
  }
  const at::Tensor d_query = block_[kQProj].backward(matmul_, query, keys(kQProj), needs_d_normed);
  if (needs_d_normed) add_rows(d_normed, d_query, rows_);
  return d_normed;
}

class CpuLmHeadOps final : public LmHeadOps {
 public:
  CpuLmHeadOps(const Network& network, Matmul& matmul, int64_t chunk_rows)
      : network_(network),
        matmul_(matmul),
        buffer_(at::empty({chunk_rows, network.head.plain.size(0)}, network.ln_f.weight.options().dtype(at::kFloat))) {}

  LmHeadResult run(const LmHeadChunk& chunk, LossOptions options) override {
    at::Tensor logits = buffer_.narrow(0, 0, chunk.targets.size(0));
    matmul_.forward_into(logits, chunk.normed, network_.head, {});
    const TrainableTokens& tokens = network_.tokens;
    if (tokens.in_head) tokens.replace_logits(logits, chunk.normed);
    LmHeadResult result;
    if (options.counts_right) result.right = at::argmax(logits, 1).eq(chunk.targets);
    result.losses = cross_entropy_rows(logits, chunk.targets, options);
    if (!options.gradients) return result;
    at::Tensor of_tokens;
    if (tokens.in_head) of_tokens = tokens.take_logits_gradient(logits, chunk.normed);
    result.d_normed = matmul_.input_gradient(logits, network_.head);
    if (tokens.in_head) result.d_normed.add_(of_tokens);
    if (network_.head_grad.defined()) network_.head_grad.addmm_(logits.t(), chunk.normed);
    return result;
  }

 private:
  const Network& network_;
  Matmul& matmul_;
  at::Tensor buffer_;  // [chunk_rows, V] fp32
};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const ModelSetup& setup) : setup_(setup), matmul_(setup.compute_dtype) {}

  std::unique_ptr<BlockOps> block_ops(const Block& block, const RowSelection& rows) override {
    return std::make_unique<CpuBlockOps>(block, matmul_, rows);
  }
  std::unique_ptr<LmHeadOps> lm_head_ops(const Network& network, int64_t chunk_rows) override {
    return std::make_unique<CpuLmHeadOps>(network, matmul_, chunk_rows);
  }
  at::Tensor cross_entropy(at::Tensor& logits, const at::Tensor& targets, const LossOptions& options) const override {
    return cross_entropy_rows(logits, targets, options);
  }
  at::Tensor multiply(const at::Tensor& x, const Matrix& weight) override { return matmul_.forward(x, weight, {}); }
  at::Tensor drop(const DropoutMask& dropout, const at::Tensor& x, const std::vector<RowKey>& keys,
                  at::Tensor& /*mask*/) const override {
    return dropout.apply(x, keys);
  }
  void add_noise(const EmbeddingNoise& noise, at::Tensor& x, const PackedBatch& batch) const override {
    noise.add_to(x, batch.noise_reach, batch.rows.key_rows);
  }
  std::string describe_attention(int64_t window) const override {
    const Attention attention(setup_.config.num_heads, window, /*on_cuda=*/false, setup_.compute_dtype);
    return model::describe_attention(attention.cpu_kernel(), window);
  }

 private:
  ModelSetup setup_;
  Matmul matmul_;
};

}  // namespace

std::unique_ptr<Backend> make_backend(const ModelSetup& setup) {
  if (setup.device.cuda) return make_cuda_backend(setup);
  return std::make_unique<CpuBackend>(setup);
}

}  // namespace neoloom::model
