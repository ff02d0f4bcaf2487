// SPDX-License-Identifier: Apache-2.0
// Runs a block on a GPU, in few operators. Tensors that only matmuls or attention read have the compute dtype, called
// "16" below even where it is fp32. All others are fp32.
#include <ATen/ops/addmm.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/sum.h>

#include <limits>
#include <vector>

#include "model/cpu/cross_entropy.h"
#include "model/cuda/attention_choice.h"
#include "model/cuda/matmul.h"
#include "model/gpt_neo/backend.h"

namespace neoloom::model {

namespace {

using enum LinearSite;

constexpr const char* kApproximation = "tanh";

bool follows(const at::Tensor& next, const at::Tensor& previous) {
  return next.is_alias_of(previous) && next.is_contiguous() && previous.is_contiguous() &&
         next.storage_offset() == previous.storage_offset() + previous.numel();
}

/// Returns matrices of equal widths stacked by rows. The result is a view if they lie in memory like that, as
/// to_device() and the flat buffer of full-parameter training lay out k, v and q.
at::Tensor vstack(const std::vector<at::Tensor>& matrices) {
  int64_t rows = matrices.front().size(0);
  bool adjacent = true;
  for (size_t i = 1; i < matrices.size(); ++i) {
    rows += matrices[i].size(0);
    adjacent = adjacent && follows(matrices[i], matrices[i - 1]);
  }
  if (!adjacent) return at::cat(matrices, 0);
  const int64_t width = matrices.front().size(1);
  return matrices.front().as_strided({rows, width}, {width, 1}, matrices.front().storage_offset());
}

class CudaBlockOps final : public BlockOps {
 public:
  CudaBlockOps(const Block& block, const CudaMatmul& matmul, const RowSelection& rows)
      : block_(block),
        matmul_(matmul),
        rows_(rows),
        attention_(block.attention_kernel, block.attention, matmul.operators()) {}

  at::Tensor layer_norm(const Norm& norm, const at::Tensor& x, Norm::Statistics* statistics) override {
    return to_16(norm.forward(x, statistics));
  }

  at::Tensor residual_norm_grad(const Norm& norm, const at::Tensor& d_normed, const at::Tensor& x,
                                const Norm::Statistics& statistics, const at::Tensor& d_residual,
                                ResidualRows rows) override {
    at::Tensor dx = norm.backward(d_normed, x, statistics);
    if (rows == ResidualRows::kSame) {
      d_residual.add_(dx);
      return d_residual;
    }
    add_rows(dx, d_residual, rows_);
    return dx;
  }

  bool keeps_normed() const override { return true; }

  at::Tensor project(LinearSite site, const at::Tensor& x, BlockSaved& saved) override;
  at::Tensor linear_add(LinearSite site, const at::Tensor& x, const at::Tensor& residual, BlockSaved& saved) override;
  at::Tensor linear_gelu(const at::Tensor& x, BlockSaved& saved) override;
  at::Tensor gelu(const SavedGelu& saved) override { return at::gelu(saved.values, kApproximation); }
  at::Tensor linear_grad(LinearSite site, const at::Tensor& dy, const at::Tensor& x, const BlockSaved& saved,
                         bool needs_dx, GradDtype dtype) override;
  at::Tensor gelu_linear_grad(const at::Tensor& dy, const BlockSaved& saved, bool needs_d_pre) override;
  at::Tensor qkv_grad(const AttentionGradients& d, const at::Tensor& normed, const BlockSaved& saved,
                      bool needs_d_normed) override;

  at::Tensor attention(BlockSaved& saved) override {
    return attention_.forward(saved.q, saved.k, saved.v, attention_rows(), saved.attention);
  }

  AttentionGradients attention_grad(const at::Tensor& d_attended, const BlockSaved& saved) override {
    return attention_.backward(d_attended.to(saved.q.scalar_type()), saved.q, saved.k, saved.v, saved.attended,
                               attention_rows(), saved.attention);
  }

 private:
  at::Tensor to_16(const at::Tensor& x) const { return matmul_.to_compute_dtype(x); }
  at::Tensor weight(LinearSite site) const { return to_16(block_[site].weight.plain); }
  AttentionRows attention_rows() const { return {rows_.segments, rows_.packed}; }
  at::Tensor qkv_weights() const;
  at::Tensor dora_output(LinearSite site, const at::Tensor& x, BlockSaved& saved) const {
    return dora_output_on_cuda(matmul_, block_[site].lora, weight(site), x, saved.adapter(site));
  }
  at::Tensor base_grad(LinearSite site, const at::Tensor& dy) const;
  void parameter_grads(LinearSite site, const at::Tensor& dy, const at::Tensor& x, const BlockSaved& saved,
                       at::Tensor* dx) const;

  const Block& block_;
  const CudaMatmul& matmul_;
  const RowSelection& rows_;
  CudaAttention attention_;
};

/// Returns the weights of k, v and q, 16 [3h, h], or without q where only some rows have queries, 16 [2h, h].
at::Tensor CudaBlockOps::qkv_weights() const {
  std::vector<at::Tensor> matrices = {block_[kKProj].weight.plain, block_[kVProj].weight.plain};
  if (rows_.all_queries()) matrices.push_back(block_[kQProj].weight.plain);
  return to_16(vstack(matrices));
}

at::Tensor CudaBlockOps::project(LinearSite site, const at::Tensor& x, BlockSaved& saved) {
  const Linear& linear = block_[site];
  const at::Tensor columns = weight(site).t();
  at::Tensor y;
  if (linear.lora.dora.present()) {
    y = to_16(dora_output(site, x, saved));
  } else if (linear.lora.present()) {
    y = adapter_output_on_cuda(matmul_, linear.lora, x, saved.adapter(site));
    y.addmm_(x, columns, /*beta=*/linear.lora.scaling);
  } else {
    y = matmul_.multiply(x, columns);
  }
  if (linear.bias.defined()) y.add_(linear.bias);
  return attention_.wants_16bit() ? y : y.to(at::kFloat);
}

at::Tensor CudaBlockOps::linear_add(LinearSite site, const at::Tensor& x, const at::Tensor& residual,
                                    BlockSaved& saved) {
  const Linear& linear = block_[site];
  const at::Tensor input = to_16(x);
  at::Tensor y = linear.bias.defined() ? residual.add(linear.bias) : residual.clone();
  if (linear.lora.dora.present()) return y.add_(dora_output(site, input, saved));
  matmul_.add_multiply(y, input, weight(site).t());
  if (linear.lora.present()) add_adapter_on_cuda(matmul_, linear.lora, y, input, saved.adapter(site));
  return y;
}

/// Keeps the pre-activation in fp32 where c_fc trains, because its gradient makes parameter gradients; else in 16.
at::Tensor CudaBlockOps::linear_gelu(const at::Tensor& x, BlockSaved& saved) {
  const Linear& linear = block_[kCFc];
  at::Tensor& y = saved.activation.values;
  if (!linear.trains()) {
    y = at::addmm(to_16(linear.bias), x, weight(kCFc).t());
    return {};
  }
  if (linear.lora.dora.present()) {
    y = dora_output(kCFc, x, saved).add_(linear.bias);
    return {};
  }
  y = matmul_.multiply_fp32(x, weight(kCFc).t());
  y.add_(linear.bias);
  if (linear.lora.present()) add_adapter_on_cuda(matmul_, linear.lora, y, x, saved.adapter(kCFc));
  return {};
}

/// Returns the gradient whose product with the weight is the input's, but for what parameter_grads adds. dy: 16.
at::Tensor CudaBlockOps::base_grad(LinearSite site, const at::Tensor& dy) const {
  const LoraBranch& lora = block_[site].lora;
  return lora.dora.present() ? dora_base_gradient(matmul_, lora, dy) : dy;
}

/// Computes the gradients of the adapter and the weight. Adds the adapter's part of the input's gradient to `dx`.
/// dy: 16; x: fp32 or 16.
void CudaBlockOps::parameter_grads(LinearSite site, const at::Tensor& dy, const at::Tensor& x, const BlockSaved& saved,
                                   at::Tensor* dx) const {
  const Linear& linear = block_[site];
  if (linear.lora.dora.present()) {
    dora_backward_on_cuda(matmul_, linear.lora, weight(site), dy, to_16(x), saved.adapter(site), dx);
  } else if (linear.lora.present()) {
    adapter_backward_on_cuda(matmul_, linear.lora, dy, to_16(x), saved.adapter(site), dx);
  }
  if (linear.weight_grad.defined()) matmul_.add_multiply(linear.weight_grad, dy.t(), to_16(x), /*beta=*/0);
}

at::Tensor CudaBlockOps::linear_grad(LinearSite site, const at::Tensor& dy, const at::Tensor& x,
                                     const BlockSaved& saved, bool needs_dx, GradDtype dtype) {
  const Linear& linear = block_[site];
  const at::Tensor dy_16 = to_16(dy);
  at::Tensor dx;
  if (needs_dx) {
    const bool fp32 = dtype == GradDtype::kFp32 || linear.lora.present();
    const at::Tensor base = base_grad(site, dy_16);
    dx = fp32 ? matmul_.multiply_fp32(base, weight(site)) : matmul_.multiply(base, weight(site));
  }
  parameter_grads(site, dy_16, x, saved, needs_dx ? &dx : nullptr);
  linear.write_bias_gradients(dy);
  return dx;
}

at::Tensor CudaBlockOps::gelu_linear_grad(const at::Tensor& dy, const BlockSaved& saved, bool needs_d_pre) {
  at::Tensor activated;
  if (block_.trains_matrix(kCProj)) activated = gelu(saved.activation);
  const at::Tensor d_activated = linear_grad(kCProj, dy, activated, saved, needs_d_pre, GradDtype::kMatmul);
  if (!needs_d_pre) return {};
  const at::Tensor& pre = saved.activation.values;
  return at::gelu_backward(d_activated.to(pre.scalar_type()), pre, kApproximation);
}

at::Tensor CudaBlockOps::qkv_grad(const AttentionGradients& d, const at::Tensor& normed, const BlockSaved& saved,
                                  bool needs_d_normed) {
  at::Tensor d_normed;
  if (needs_d_normed) {
    std::vector<at::Tensor> grads = {base_grad(kKProj, d.dk), base_grad(kVProj, d.dv)};
    if (rows_.all_queries()) grads.push_back(base_grad(kQProj, d.dq));
    const at::Tensor columns = at::cat(grads, 1);
    d_normed = matmul_.multiply_fp32(to_16(columns), qkv_weights());
  }
  const auto write = [&](LinearSite site, const at::Tensor& dy) {
    if (!block_.trains(site)) return;
    parameter_grads(site, to_16(dy), normed, saved, needs_d_normed ? &d_normed : nullptr);
    block_[site].write_bias_gradients(dy);
  };
  write(kKProj, d.dk);
  write(kVProj, d.dv);
  if (rows_.all_queries()) {
    write(kQProj, d.dq);
    return d_normed;
  }
  const at::Tensor query_input = normed.defined() ? select_rows(normed, rows_) : normed;
  const at::Tensor d_query = linear_grad(kQProj, d.dq, query_input, saved, needs_d_normed, GradDtype::kFp32);
  if (needs_d_normed) add_rows(d_normed, d_query, rows_);
  return d_normed;
}

class CudaLmHeadOps final : public LmHeadOps {
 public:
  CudaLmHeadOps(const Network& network, const CudaMatmul& matmul)
      : network_(network),
        matmul_(matmul),
        head_(matmul.to_compute_dtype(network.aligned_head.defined() ? network.aligned_head : network.head.plain)) {}

  LmHeadResult run(const LmHeadChunk& chunk, LossOptions options) override {
    const int64_t vocabulary = network_.head.plain.size(0);
    at::Tensor logits = matmul_.multiply_fp32(matmul_.to_compute_dtype(chunk.normed), head_.t());
    const int64_t aligned_rows = head_.size(0) - vocabulary;
    if (aligned_rows > 0) logits.narrow(1, vocabulary, aligned_rows).fill_(-std::numeric_limits<float>::infinity());
    const TrainableTokens& tokens = network_.tokens;
    if (tokens.in_head) tokens.replace_logits(logits, chunk.normed);
    LmHeadResult result;
    if (options.counts_right) result.right = at::argmax(logits, 1).eq(chunk.targets);
    result.losses = cuda_cross_entropy_rows(logits, chunk.targets, options, vocabulary, head_.scalar_type());
    if (!options.gradients) return result;
    at::Tensor counted, of_tokens;
    if (tokens.in_head || network_.head_grad.defined()) {
      counted = chunk.weights.defined() ? chunk.normed.mul(chunk.weights.unsqueeze(1)) : chunk.normed;
    }
    if (tokens.in_head) of_tokens = tokens.take_logits_gradient(logits, counted);
    result.d_normed = matmul_.multiply_fp32(logits, head_);
    if (tokens.in_head) result.d_normed.add_(of_tokens);
    if (network_.head_grad.defined()) {
      matmul_.add_multiply(network_.head_grad, logits.t(), matmul_.to_compute_dtype(counted));
    }
    return result;
  }

 private:
  const Network& network_;
  const CudaMatmul& matmul_;
  at::Tensor head_;  // [at least V, h] in the compute dtype
};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const ModelSetup& setup)
      : setup_(setup),
        matmul_(setup.compute_dtype,
                setup.operators ? setup.operators : std::make_shared<CudaOperators>(libtorch_operators())) {}

  std::unique_ptr<BlockOps> block_ops(const Block& block, const RowSelection& rows) override {
    return std::make_unique<CudaBlockOps>(block, matmul_, rows);
  }
  std::unique_ptr<LmHeadOps> lm_head_ops(const Network& network, int64_t /*chunk_rows*/) override {
    return std::make_unique<CudaLmHeadOps>(network, matmul_);
  }
  at::Tensor cross_entropy(at::Tensor& logits, const at::Tensor& targets, const LossOptions& options) const override {
    return cuda_cross_entropy_rows(logits, targets, options, logits.size(1));
  }
  at::Tensor multiply(const at::Tensor& x, const Matrix& weight) override {
    return matmul_.multiply_fp32(matmul_.to_compute_dtype(x), matmul_.to_compute_dtype(weight.plain).t());
  }
  at::Tensor drop(const DropoutMask& dropout, const at::Tensor& x, const std::vector<RowKey>& /*keys*/,
                  at::Tensor& mask) const override {
    return drop_on_cuda(dropout.probability, x, mask);
  }
  void add_noise(const EmbeddingNoise& /*noise*/, at::Tensor& x, const PackedBatch& batch) const override {
    x.addcmul_(at::empty_like(x).uniform_(-1.0, 1.0), batch.noise_reach.unsqueeze(1));
  }
  std::string describe_attention(int64_t window) const override {
    return model::describe_attention(attention_kernel(setup_, window), window);
  }

 private:
  ModelSetup setup_;
  CudaMatmul matmul_;
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const ModelSetup& setup) { return std::make_unique<CudaBackend>(setup); }

}  // namespace neoloom::model
