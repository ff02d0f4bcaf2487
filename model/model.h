// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/device_traits.h"
#include "model/gpt_neo_config.h"
#include "model/options.h"
#include "model/parameter_layout.h"

namespace neoloom::model {

struct Weights;        // model/gpt_neo/weights.h
struct CudaOperators;  // model/cuda/operators.h
struct MicroBatch;     // model/batch/packing.h

/// A micro-batch of B samples in host memory: their N tokens, concatenated without padding.
struct Batch {
  std::vector<int64_t> sample_ids;   // [B], keys of dropout masks and noise
  std::vector<int64_t> cu_seqlens;   // [B + 1]: where each sample begins in `ids`, then N; no sample is empty
  std::vector<int64_t> ids;          // [N]
  bool has_targets = false;          // false: no loss is computed
  std::vector<int64_t> target_rows;  // kCausalLm [n]: rows of `ids` whose next token is a target
  std::vector<int64_t> targets;      // kCausalLm [n]: those next tokens; kSingleLabel [B]: classes, -1 unlabelled
  std::vector<float> multi_labels;   // kMultiLabel [B, num_labels]: 0 or 1
  std::vector<float> values;         // kRegression [B, num_labels]; NaN: unlabelled
  /// Factors of the losses: kSingleLabel [B], kMultiLabel [B, num_labels]; empty: 1.
  std::vector<float> loss_weights;
};

/// Key of the counter-based dropout masks and noise, together with (sample, token, channel, layer, site).
struct DropoutKey {
  uint64_t seed = 0;
  int64_t epoch = 0;
  // GPUs use LibTorch's own random numbers, seeded by these instead of by sample and token (but for attention):
  int64_t step = 0;
  int64_t micro_batch = 0;  // index in the step's list, not the rank's
};

/// Weighted loss, summed over the labelled samples or supervised tokens. Callers divide by the global sum of the
/// weights of the step's targets at the end.
struct LossSum {
  at::Tensor loss;    // [] fp64 on the model's device
  int64_t count = 0;  // samples with a label, or supervised tokens
};

struct EvalOutput {
  LossSum loss;
  at::Tensor logits;  // classification: [B, num_labels] fp32; causal LM: undefined
  at::Tensor right;   // causal LM: [] int64, targets that have the largest logit; undefined without targets
};

struct ModelSetup {
  GptNeoConfig config;
  Head head = Head::kCausalLm;
  int64_t num_labels = 0;                          // classification only
  std::optional<LoraOptions> lora;                 // nullopt: full-parameter training
  Dtype compute_dtype = Dtype::kFloat32;           // input type of matmuls with frozen weights
  int64_t logits_chunk_rows = 0;                   // causal LM: rows of logits in memory at once; 0: default
  double label_smoothing = 0.0;                    // kSingleLabel, kCausalLm; in training and evaluation
  double neftune_noise_alpha = 0.0;                // noise on the token embeddings in training; 0: none
  bool gradient_checkpointing = false;             // recompute all blocks but the last in backward
  DeviceTraits device;                             // chooses the kernels
  std::shared_ptr<const CudaOperators> operators;  // GPUs; null: libtorch_operators()
};

/// Rows of logits in memory at once: ModelSetup's, or the device's default.
int64_t logits_chunk_rows(const ModelSetup& setup);

/// GPT-Neo with explicit forward and backward; no autograd. Frozen weights are shared and read-only; trainable values
/// live in a flat fp32 buffer owned by the caller, gradients are written to another one with the same layout.
/// Thread: one call at a time.
class Model {
 public:
  /// Throws: Error(kUsage) when a LoRA target matches no module.
  static std::unique_ptr<Model> create(const ModelSetup& setup, std::shared_ptr<const Weights> weights);
  virtual ~Model() = default;

  virtual const ModelSetup& setup() const = 0;
  virtual const ParameterLayout& layout() const = 0;
  /// The kernels that were chosen, for the log: one line each.
  virtual std::vector<std::string> kernels() const = 0;

  /// Initial values: LoRA A and B as AdapterInit says, DoRA's magnitude the norm of each row of the adapted weight,
  /// score from the weights or N(0, initializer_range); in full-parameter mode the loaded weights. A pure function of
  /// seed, slot name and frozen weight. Shapes: params [layout().total_elements] fp32; padding is zeroed.
  void initialize(at::Tensor& params, uint64_t seed) const { initialize_share(params, seed, {}); }
  /// The same for one of `of` callers. If AdapterInit::decomposes(), the caller computes each `of`-th adapter of the
  /// layout, from `number` on, and leaves A and B of the others 0.
  /// Throws: Error(kWeights) when a frozen weight cannot be decomposed.
  struct Share {
    int64_t number = 0;
    int64_t of = 1;
  };
  virtual void initialize_share(at::Tensor& params, uint64_t seed, Share share) const = 0;

  /// Computes with W - s B0 A0 in place of each adapted weight W from here on, where A0 and B0 are those in `initial`
  /// [layout().total_elements] fp32 on the model's device, kept without a copy: PiSSA and OLoRA
  /// (AdapterInit::splits_weights). W itself, which processes share, stays as it is.
  virtual void subtract(const at::Tensor& initial) = 0;
  /// What subtract() was given; undefined: nothing.
  virtual const at::Tensor& subtracted() const = 0;

  /// Runs one micro-batch in training mode, with the dropouts of config.json and LoRA. Returns the loss sum. OVERWRITES
  /// `grads` with the gradients of (loss sum * loss_scale). Shapes: params, grads [layout().total_elements] fp32 on the
  /// model's device.
  virtual LossSum forward_backward(const Batch& batch, const at::Tensor& params, at::Tensor& grads,
                                   const DropoutKey& key, double loss_scale) = 0;

  /// Called during the backward pass, from the last block to the first: gradients from `begin_elements` on are final.
  /// May be empty.
  using GradientsReady = std::function<void(int64_t begin_elements)>;

  /// forward_backward in two parts, for CUDA graphs.
  struct MicroStep {
    /// Micro-steps with equal texts enqueue the same kernels on the same memory, given the same buffers. Empty: do not
    /// capture, since kernels differ between micro-steps.
    std::string shape;
    std::function<void()> begin;  // call before each enqueue, never captured: seeds native random numbers
    std::function<void(const GradientsReady& ready)> enqueue;  // computes; valid until the next prepare()
    LossSum loss;                                              // `loss.loss` is written by enqueue
  };
  /// Makes the tensors that a micro-step reads, in host memory, which is pinned if `device` is a GPU.
  /// Thread: any. Throws: Error(kData) naming the sample when a length, an id or a label is out of range.
  virtual std::shared_ptr<const MicroBatch> pack(const Batch& batch, const at::Device& device) const = 0;
  /// Copies a packed batch to the static inputs that enqueue reads.
  virtual MicroStep prepare(const MicroBatch& batch, const at::Tensor& params, at::Tensor& grads, const DropoutKey& key,
                            double loss_scale) = 0;

  /// One batch in evaluation mode (no dropout, no noise). The loss is undefined without targets.
  virtual EvalOutput evaluate(const Batch& batch, const at::Tensor& params) = 0;

  /// All logits of a causal LM, [N, V] fp32, for tests and generation without a KV cache.
  virtual at::Tensor lm_logits(const Batch& batch, const at::Tensor& params) = 0;

  /// Decodes sequences beside each other, each of up to `max_tokens`, with a KV cache.
  class Decoder {
   public:
    struct NextTokens {
      int64_t sequence = 0;      // each at most once in a call
      std::vector<int64_t> ids;  // at the sequence's next positions
    };
    virtual ~Decoder() = default;
    /// Returns the logits after the last token of each entry: [entries, V] fp32, host memory.
    virtual at::Tensor feed(const std::vector<NextTokens>& next) = 0;
    virtual int64_t position(int64_t sequence) const = 0;
    /// Forgets a sequence's tokens: its next ones are at position 0.
    virtual void restart(int64_t sequence) = 0;
  };
  virtual std::unique_ptr<Decoder> make_decoder(const at::Tensor& params, int64_t max_tokens,
                                                int64_t sequences = 1) = 0;

  /// FLOPs of one trained token at sequence length T, for model TFLOP/s: forward and backward to activations, 4 FLOPs
  /// per frozen matrix element, causal and windowed attention.
  virtual double training_flops_per_token(int64_t length) const = 0;
};

}  // namespace neoloom::model
