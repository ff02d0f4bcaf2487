// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "model/gpt_neo/block.h"
#include "model/gpt_neo/trainable_tokens.h"
#include "model/gpt_neo/weights.h"
#include "model/lora/dropout.h"
#include "model/lora/target_modules.h"
#include "model/model.h"
#include "model/parameter_layout.h"

namespace neoloom::model {

/// The whole model for one call. Weights are the frozen tensors or views of the flat buffer; adapters and gradients are
/// views of the flat buffers. Cheap to build; owns no values.
struct Network {
  at::Tensor wte, wpe;            // [V, h], [max_pos, h], any dtype
  at::Tensor wte_grad, wpe_grad;  // undefined: frozen
  TrainableTokens tokens;
  EmbeddingNoise noise;       // of words; training only, as the next
  DropoutMask embed_dropout;  // of words and positions together
  std::vector<Block> blocks;
  Norm ln_f;
  Matrix head;              // causal LM: [V, h]
  at::Tensor aligned_head;  // GPUs: see Weights::aligned_lm_head
  at::Tensor head_grad;     // the same view as wte_grad when tied; undefined: frozen
  at::Tensor score;         // classification: [C, h] fp32
  at::Tensor score_grad;

  /// Blocks below this one have nothing to train and pass no gradient on; L when only the head trains.
  size_t lowest_trainable_block() const;
  bool trains_embedding() const { return wte_grad.defined() || tokens.rows_grad.defined(); }
  /// wte[ids], with the rows of `tokens`, + wpe[positions] in fp32, a new tensor: [N, h].
  at::Tensor embed(const at::Tensor& ids, const at::Tensor& positions) const;
};

/// On GPUs: the kernel of layers with this window (0: global); with dropout of attention, evaluations alone use it.
AttentionKernel attention_kernel(const ModelSetup& setup, int64_t window);
/// Whether micro-batches can have few fixed shapes, for CUDA graphs. They cannot where attention works sample by
/// sample, since its kernels depend on the lengths.
bool has_fixed_shapes(const ModelSetup& setup);

/// Knows which tensors train and their offsets in the flat buffers; builds Networks over buffers.
class NetworkBuilder {
 public:
  /// Throws: Error(kUsage) when LoRA matches nothing, the head lacks labels, or shapes of weights and config differ.
  NetworkBuilder(const ModelSetup& setup, std::shared_ptr<const Weights> weights);

  const ParameterLayout& layout() const { return layout_; }

  /// `grads` undefined: no gradients. `dropout` null: evaluation mode.
  Network build(const at::Tensor& params, const at::Tensor& grads, const DropoutKey* dropout) const;

  /// See Model::initialize_share.
  void initialize(at::Tensor& params, uint64_t seed, Model::Share share) const;
  /// See Model::subtract.
  void subtract(const at::Tensor& initial);
  const at::Tensor& subtracted() const { return subtracted_; }

 private:
  struct LoraSlots {
    int64_t a = -1;
    int64_t b = -1;
    int64_t magnitude = -1;     // DoRA
    at::Tensor weight_squares;  // [out] DoRA
    int64_t bias = -1;          // lora_bias
    double scaling = 0.0;
  };

  void lay_out_adapters();
  void check_start(const AdapterShape& adapter, int64_t layer, LinearSite site) const;
  void add_adapter(size_t layer, LinearSite site, const AdapterShape& adapter);
  void add_after_blocks();
  void add_biases(size_t layer, const BlockAdapters& adapters);
  void lay_out_everything();
  void convert_small_tensors();
  Block build_block(size_t layer, const at::Tensor& params, const at::Tensor& lowp_params, const at::Tensor& grads,
                    const DropoutKey* dropout) const;
  void choose_attention(Block& block, bool local) const;
  void attach_dropouts(Network& network, const DropoutKey& key) const;
  void attach_adapters(Block& block, size_t layer, const at::Tensor& params, const at::Tensor& lowp_params,
                       const at::Tensor& grads, const DropoutKey* dropout) const;
  void attach_biases(Block& block, size_t layer, const at::Tensor& params, const at::Tensor& grads) const;
  void attach_whole(Network& network, const at::Tensor& params, const at::Tensor& grads) const;
  Network build_frozen(const at::Tensor& params, const at::Tensor& grads, const DropoutKey* dropout) const;
  Network build_full(const at::Tensor& params, const at::Tensor& grads) const;
  void initialize_biases(const at::Tensor& params) const;
  void initialize_whole(const at::Tensor& params) const;
  void initialize_adapters(const at::Tensor& params, uint64_t seed, Model::Share share) const;
  at::Tensor slot_view(const at::Tensor& buffer, int64_t slot) const;

  ModelSetup setup_;
  std::shared_ptr<const Weights> weights_;
  ParameterLayout layout_;
  std::vector<BlockWeights> frozen_blocks_;  // biases and LayerNorm parameters in fp32
  NormWeights ln_f_;                         // fp32
  std::vector<std::array<LoraSlots, 6>> lora_slots_;
  std::vector<std::array<int64_t, kBlockParameters.size()>> bias_slots_;  // [L]; -1: frozen
  TrainableTokens tokens_;                                                // without rows
  int64_t tokens_slot_ = -1;
  int64_t wte_slot_ = -1;  // these of modules_to_save
  int64_t ln_f_slot_ = -1;
  int64_t ln_f_bias_slot_ = -1;  // or of bias
  int64_t lm_head_slot_ = -1;
  int64_t score_slot_ = -1;
  at::Tensor subtracted_;       // [total_elements] fp32, see Model::subtract; undefined: nothing
  at::Tensor lowp_subtracted_;  // GPUs: the same in the compute dtype
};

}  // namespace neoloom::model
