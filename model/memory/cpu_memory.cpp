// SPDX-License-Identifier: Apache-2.0
// Makes the tensors that cpu_backend.cpp makes, and Matmul, Linear, LoraBranch and Attention below it.
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <bit>

#include "model/cpu/attention.h"
#include "model/cpu/gemm_microkernel.h"
#include "model/cpu/matmul.h"
#include "model/cpu/packed_gemm.h"
#include "model/cpu/tiled_attention.h"
#include "model/memory/memory_backend.h"

namespace neoloom::model {

namespace {

using enum LinearSite;

void take_briefly(int64_t bytes) { make({bytes}, at::kByte); }

/// Makes the temporary tensors of matmuls and attention.
class CpuKernels {
 public:
  CpuKernels(const MemorySetup& setup, int64_t longest, std::vector<StepGemm>* gemms)
      : compute_dtype_(setup.model.compute_dtype),
        matmul_(compute_dtype_),
        head_size_(setup.model.config.head_dim()),
        threads_(setup.threads),
        drops_(setup.model.config.attention_dropout > 0.0),
        longest_(longest),
        gemms_(gemms) {}

  at::ScalarType input_type(const Matrix& weight) const { return matmul_.input_type(weight); }
  static bool is_packed(const Matrix& weight) { return weight.packed_weights.forward.defined(); }

  /// Stands for x [n, k] times W^T, or with `backward` times W.
  void multiply(const at::Tensor& x, const Matrix& weight, bool backward = false);
  /// Stands for attention. Shapes: q [n, h], k [N, h].
  void attend(const at::Tensor& q, const at::Tensor& k, bool backward) const;

 private:
  int64_t tile_scratch_bytes(bool lowp, bool backward) const;
  void add_gemm(int64_t rows, const at::Tensor& weight, bool backward);

  Dtype compute_dtype_;
  Matmul matmul_;
  int64_t head_size_;
  int64_t threads_;
  bool drops_;  // attention probabilities
  int64_t longest_;
  std::vector<StepGemm>* gemms_;
  at::Tensor scratch_;  // weights converted to fp32: Matmul keeps them, too
};

void CpuKernels::add_gemm(int64_t rows, const at::Tensor& weight, bool backward) {
  if (gemms_ == nullptr) return;
  const int64_t in = weight.size(1);
  const int64_t out = weight.size(0);
  const auto same = std::find_if(gemms_->begin(), gemms_->end(), [&](const StepGemm& gemm) {
    return gemm.rows == rows && gemm.in == in && gemm.out == out && gemm.backward == backward;
  });
  if (same == gemms_->end()) {
    gemms_->push_back({rows, in, out, backward, /*count=*/1});
  } else {
    ++same->count;
  }
}

void CpuKernels::multiply(const at::Tensor& x, const Matrix& weight, bool backward) {
  const at::Tensor& plain = weight.plain;
  const int64_t rows = x.size(0);
  const int64_t k = x.size(1);
  const bool lowp = compute_dtype_ != Dtype::kFloat32;
  add_gemm(rows, plain, backward);
  if (is_packed(weight)) {
    const bool converts_tiles =
        backward || plain.scalar_type() != at::kFloat || microkernel(Dtype::kFloat32) == Microkernel::kAvx2;
    if (lowp && x.scalar_type() == at::kFloat) take_briefly(kLowpBytes * rows * (k + k % 2));
    if (!lowp && converts_tiles) take_briefly(threads_ * kFp32Bytes * kPackedCopyElements);
  } else if (cpu_compute_dtype(compute_dtype_) != Dtype::kFloat32) {
    const bool converts = plain.scalar_type() != scalar_type(compute_dtype_);
    take_briefly(kLowpBytes * (rows * (k + plain.numel() / k) + (converts ? plain.numel() : 0)));
  } else if (plain.scalar_type() != at::kFloat) {
    const int64_t elements = std::min(Matmul::kScratchElements, plain.numel());
    if (!scratch_.defined() || scratch_.numel() < elements) scratch_ = make({elements}, at::kFloat);
  }
}

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

/// Returns the bytes of CpuHeadAttention's memory, of which each thread has one: keys packed once for scores and once
/// for sums, gradients of keys, and rows of scores.
int64_t CpuKernels::tile_scratch_bytes(bool lowp, bool backward) const {
  const int64_t element = lowp ? kLowpBytes : kFp32Bytes;
  const int64_t widest = round_up(longest_, kAttentionTile);
  const int64_t keys = widest * head_size_;
  const int64_t scores = kAttentionTile * static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(widest)));
  const int64_t lowp_scores = lowp ? kLowpBytes * scores : 0;
  return backward ? keys * (3 * element + 2 * kFp32Bytes) + 2 * kFp32Bytes * scores + lowp_scores
                  : keys * 2 * element + kFp32Bytes * scores + lowp_scores;
}

void CpuKernels::attend(const at::Tensor& q, const at::Tensor& k, bool backward) const {
  const bool tiled = !drops_ && attends_in_tiles(q.size(0) == k.size(0) ? longest_ : 1, longest_);
  const bool lowp = tiled && cpu_compute_dtype(compute_dtype_) != Dtype::kFloat32;
  int64_t bytes = 0;
  if (lowp != (q.scalar_type() != at::kFloat)) {
    const int64_t converted = backward ? 3 * q.numel() + 4 * k.numel() : 2 * q.numel() + 2 * k.numel();
    bytes += (lowp ? kLowpBytes : kFp32Bytes) * converted;
  }
  const int64_t scores = (backward ? 4 : 3) + (drops_ ? (backward ? 2 : 1) : 0);
  const int64_t untiled = scores * kFp32Bytes * std::min(kAttentionQueries, longest_) * longest_;
  take_briefly(bytes + threads_ * (tiled ? tile_scratch_bytes(lowp, backward) : untiled));
}

class CpuMemoryOps final : public BlockOps {
 public:
  CpuMemoryOps(const Block& block, CpuKernels& kernels, const RowSelection& rows)
      : block_(block), kernels_(kernels), rows_(rows), type_(kernels.input_type(block[kCFc].weight)) {}

  at::Tensor layer_norm(const Norm& /*norm*/, const at::Tensor& x, Norm::Statistics* statistics) override {
    at::Tensor y = make(x.sizes(), type_);
    const at::Tensor both = make({2, x.size(0), 1}, at::kFloat);
    if (statistics != nullptr) *statistics = {both.select(0, 0), both.select(0, 1)};
    return y;
  }

  at::Tensor residual_norm_grad(const Norm& norm, const at::Tensor& d_normed, const at::Tensor& x,
                                const Norm::Statistics& /*statistics*/, const at::Tensor& d_residual,
                                ResidualRows rows) override {
    const bool same = rows == ResidualRows::kSame || rows_.all_queries();
    at::Tensor dx = same ? d_residual : at::empty_like(x);
    if (norm.trains()) take_briefly(static_cast<int64_t>(d_normed.nbytes()));
    return dx;
  }

  bool keeps_normed() const override { return false; }

  at::Tensor project(LinearSite site, const at::Tensor& x, BlockSaved& saved) override {
    return linear(site, x, saved, type_);
  }

  at::Tensor linear_add(LinearSite site, const at::Tensor& x, const at::Tensor& /*residual*/,
                        BlockSaved& saved) override {
    return linear(site, x, saved, at::kFloat);
  }

  at::Tensor linear_gelu(const at::Tensor& x, BlockSaved& saved) override {
    const Matrix& weight = block_[kCFc].weight;
    const at::Tensor part = adapter(kCFc, x, saved);
    at::Tensor activated = make({x.size(0), weight.plain.size(0)}, type_);
    saved.activation.values = CpuKernels::is_packed(weight)
                                  ? make(activation_tiles_shape(x.size(0), weight.plain.size(0)), type_)
                                  : at::empty_like(activated);
    kernels_.multiply(x, weight);
    return activated;
  }

  at::Tensor gelu(const SavedGelu& saved) override {
    return rows_of_tiles(at::empty_like(saved.values), block_[kCProj].weight.plain.size(1));
  }

  at::Tensor linear_grad(LinearSite site, const at::Tensor& dy, const at::Tensor& x, const BlockSaved& /*saved*/,
                         bool needs_dx, GradDtype dtype) override {
    return input_grad(site, dy.to(type_), x, needs_dx, dtype == GradDtype::kFp32 ? at::kFloat : type_);
  }

  at::Tensor gelu_linear_grad(const at::Tensor& dy, const BlockSaved& saved, bool needs_d_pre) override {
    at::Tensor activated;
    if (block_.trains_matrix(kCProj)) activated = gelu(saved.activation);
    return input_grad(kCProj, dy.to(type_), activated, needs_d_pre, type_);
  }

  at::Tensor qkv_grad(const AttentionGradients& d, const at::Tensor& normed, const BlockSaved& /*saved*/,
                      bool needs_d_normed) override {
    const at::Tensor query_input = normed.defined() ? select_rows(normed, rows_) : normed;
    at::Tensor d_normed = input_grad(kKProj, d.dk, normed, needs_d_normed, at::kFloat);
    add_input_grad(kVProj, d.dv, normed, needs_d_normed);
    if (rows_.all_queries()) {
      add_input_grad(kQProj, d.dq, normed, needs_d_normed);
    } else {
      input_grad(kQProj, d.dq, query_input, needs_d_normed, at::kFloat);
    }
    return d_normed;
  }

  at::Tensor attention(BlockSaved& saved) override {
    at::Tensor out = at::empty_like(saved.q);
    kernels_.attend(saved.q, saved.k, /*backward=*/false);
    return out;
  }

  AttentionGradients attention_grad(const at::Tensor& /*d_attended*/, const BlockSaved& saved) override {
    AttentionGradients d = {at::empty_like(saved.q), at::empty_like(saved.k), at::empty_like(saved.v)};
    kernels_.attend(saved.q, saved.k, /*backward=*/true);
    return d;
  }

 private:
  at::Tensor linear(LinearSite site, const at::Tensor& x, BlockSaved& saved, at::ScalarType type) {
    const at::Tensor part = adapter(site, x, saved);
    const Matrix& weight = block_[site].weight;
    at::Tensor y = make({x.size(0), weight.plain.size(0)}, type);
    kernels_.multiply(x, weight);
    return y;
  }

  /// Stands for Linear::backward.
  at::Tensor input_grad(LinearSite site, const at::Tensor& dy, const at::Tensor& x, bool needs_dx,
                        at::ScalarType type) {
    const BackwardGemm gemm = adapter_grad(site, dy, x, needs_dx);
    if (!needs_dx) return {};
    const Matrix& weight = block_[site].weight;
    at::Tensor dx = make({dy.size(0), weight.plain.size(1)}, type);
    kernels_.multiply(gemm.dy, weight, /*backward=*/true);
    return dx;
  }

  /// Stands for Linear::backward_into.
  void add_input_grad(LinearSite site, const at::Tensor& dy, const at::Tensor& x, bool needs_dx) {
    const BackwardGemm gemm = adapter_grad(site, dy, x, needs_dx);
    if (needs_dx) kernels_.multiply(gemm.dy, block_[site].weight, /*backward=*/true);
  }

  static at::Tensor dropped(const at::Tensor& x) { return at::empty_like(x.to(at::kFloat)); }

  /// Stands for Linear::forward_gemm. Returns what lives until the GEMM ends.
  at::Tensor adapter(LinearSite site, const at::Tensor& x, BlockSaved& saved) {
    const LoraBranch& lora = block_[site].lora;
    if (!lora.present()) return {};
    const at::Tensor input = lora.dropout.active() ? dropped(x) : x;
    saved.adapter(site).down = make({x.size(0), lora.a.size(0)}, at::kFloat);
    if (lora.a0.defined()) take_briefly(joined_bytes(x.size(0), lora));
    if (!lora.dora.present() || !lora.dropout.active()) return {};
    const at::Tensor rest = dropped(x);
    const Matrix& weight = block_[site].weight;
    at::Tensor both = make({x.size(0), weight.plain.size(0) + weight.plain.size(1)}, at::kFloat);
    kernels_.multiply(rest, weight);
    return both;
  }

  /// Bytes of x a0^T, and of both adapters' products beside each other.
  static int64_t joined_bytes(int64_t rows, const LoraBranch& lora) { return 3 * kFp32Bytes * rows * lora.a.size(0); }

  struct BackwardGemm {
    at::Tensor dy, term;
  };

  /// Stands for Linear::write_gradients.
  BackwardGemm adapter_grad(LinearSite site, const at::Tensor& dy, const at::Tensor& x, bool needs_dx) {
    const LoraBranch& lora = block_[site].lora;
    if (!lora.present()) return {dy, {}};
    if (!lora.dora.present()) return {dy, low_rank_grad(lora, dy, x, needs_dx)};
    const Matrix& weight = block_[site].weight;
    {
      const at::Tensor input = lora.dropout.active() ? dropped(x) : x;
      const at::Tensor unscaled = make(dy.sizes(), at::kFloat);
      kernels_.multiply(input, weight);
      take_briefly(kFp32Bytes * dy.numel());
    }
    const at::Tensor scaled = make(dy.sizes(), at::kFloat);
    const at::Tensor term = low_rank_grad(lora, scaled, x, needs_dx);
    if (!lora.dropout.active()) return {scaled, term};
    if (!needs_dx) return {dy, term};
    const at::Tensor rest = at::empty_like(scaled);
    const at::Tensor unmasked = make(x.sizes(), at::kFloat);
    kernels_.multiply(rest, weight, /*backward=*/true);
    take_briefly(kFp32Bytes * x.numel());
    return {dy, term};
  }

  /// Stands for LoraBranch::backward.
  static at::Tensor low_rank_grad(const LoraBranch& lora, const at::Tensor& dy, const at::Tensor& x, bool needs_dx) {
    const int64_t rank = lora.a.size(0);
    at::Tensor d_down = make({dy.size(0), rank}, at::kFloat);
    take_briefly(kFp32Bytes * rank * (dy.size(0) + dy.size(1)));
    if (lora.a0.defined() && needs_dx) take_briefly(joined_bytes(dy.size(0), lora));
    if (!lora.dropout.active()) return d_down;
    {
      const at::Tensor input = dropped(x);
      take_briefly(kFp32Bytes * rank * (x.size(0) + x.size(1)));
    }
    return needs_dx ? dropped(make(x.sizes(), at::kFloat)) : at::Tensor();
  }

  const Block& block_;
  CpuKernels& kernels_;
  const RowSelection& rows_;
  at::ScalarType type_;  // input type of matmuls
};

class CpuLmHeadMemory final : public LmHeadOps {
 public:
  CpuLmHeadMemory(const Network& network, CpuKernels& kernels, int64_t chunk_rows)
      : head_(network.head),
        tokens_(network.tokens),
        kernels_(kernels),
        buffer_(make({chunk_rows, head_.plain.size(0)}, at::kFloat)) {}

  LmHeadResult run(const LmHeadChunk& chunk, LossOptions options) override {
    at::Tensor logits = buffer_.narrow(0, 0, chunk.targets.size(0));
    // A matmul with a plain matrix allocates its result instead of writing into the buffer.
    if (!CpuKernels::is_packed(head_)) logits = make(logits.sizes(), at::kFloat);
    kernels_.multiply(chunk.normed, head_);
    if (tokens_.in_head) tokens_.replace_logits(logits, chunk.normed);
    LmHeadResult result;
    if (options.counts_right) result.right = make({logits.size(0)}, at::kBool);
    result.losses = make({logits.size(0)}, at::kFloat);
    if (!options.gradients) return result;
    at::Tensor of_tokens;
    if (tokens_.in_head) of_tokens = tokens_.take_logits_gradient(logits, chunk.normed);
    result.d_normed = make(chunk.normed.sizes(), at::kFloat);
    kernels_.multiply(logits, head_, /*backward=*/true);
    return result;
  }

 private:
  const Matrix& head_;
  const TrainableTokens& tokens_;
  CpuKernels& kernels_;
  at::Tensor buffer_;
};

class CpuMemoryBackend final : public Backend {
 public:
  CpuMemoryBackend(const MemorySetup& setup, int64_t longest, std::vector<StepGemm>* gemms)
      : kernels_(setup, longest, gemms) {}

  std::unique_ptr<BlockOps> block_ops(const Block& block, const RowSelection& rows) override {
    return std::make_unique<CpuMemoryOps>(block, kernels_, rows);
  }
  std::unique_ptr<LmHeadOps> lm_head_ops(const Network& network, int64_t chunk_rows) override {
    return std::make_unique<CpuLmHeadMemory>(network, kernels_, chunk_rows);
  }
  at::Tensor cross_entropy(at::Tensor& logits, const at::Tensor& /*targets*/,
                           const LossOptions& /*options*/) const override {
    return make({logits.size(0)}, at::kFloat);
  }
  at::Tensor multiply(const at::Tensor& x, const Matrix& weight) override {
    return make({x.size(0), weight.plain.size(0)}, at::kFloat);
  }
  at::Tensor drop(const DropoutMask& /*dropout*/, const at::Tensor& x, const std::vector<RowKey>& /*keys*/,
                  at::Tensor& /*mask*/) const override {
    return at::empty_like(x);
  }
  void add_noise(const EmbeddingNoise& /*noise*/, at::Tensor& /*x*/, const PackedBatch& /*batch*/) const override {}
  std::string describe_attention(int64_t /*window*/) const override { return {}; }

 private:
  CpuKernels kernels_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_memory_backend(const MemorySetup& setup, int64_t longest,
                                                 std::vector<StepGemm>* gemms) {
  return std::make_unique<CpuMemoryBackend>(setup, longest, gemms);
}

}  // namespace neoloom::model
