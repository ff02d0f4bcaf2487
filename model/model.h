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

/// A micro-batch of B samples in host memory: their N tokens one sample after the other, without padding.
struct Batch {
  std::vector<int64_t> sample_ids;   // [B], keys of the dropout masks
  std::vector<int64_t> cu_seqlens;   // [B + 1]: where each sample begins in `ids`, then N; none is empty
  std::vector<int64_t> ids;          // [N]
  bool has_targets = false;          // false: no loss wanted
  std::vector<int64_t> target_rows;  // kCausalLm [n]: rows of `ids` whose next token is a target
  std::vector<int64_t> targets;      // kCausalLm [n]: these next tokens; kSingleLabel [B]: classes, -1 unlabelled
  std::vector<float> multi_labels;   // kMultiLabel [B, num_labels]: 0 or 1
};

/// Key of the counter-based dropout masks: with (sample, token, channel, layer, site) it decides each element.
struct DropoutKey {
  uint64_t seed = 0;
  int64_t epoch = 0;
  // GPUs draw their masks natively, from a seed made of these instead of sample and token:
  int64_t step = 0;
  int64_t micro_batch = 0;  // index in the step's list, whatever rank computes it
};

/// Sums over the rows or tokens that count; divide by the step's global count at the last moment.
struct LossSum {
  at::Tensor loss;    // [] fp64 on the model's device
  int64_t count = 0;  // samples with a label, or supervised tokens
};

struct EvalOutput {
  LossSum loss;
  at::Tensor logits;  // classification: [B, num_labels] fp32; causal LM: undefined
};

struct ModelSetup {
  GptNeoConfig config;
  Head head = Head::kCausalLm;
  int64_t num_labels = 0;                          // classification only
  std::optional<LoraOptions> lora;                 // nullopt: full-parameter training
  Dtype compute_dtype = Dtype::kFloat32;           // inputs of frozen products
  int64_t logits_chunk_rows = 0;                   // causal LM: rows of logits held at once; 0: a default
  bool gradient_checkpointing = false;             // of all blocks but the last only the input is kept for backward
  DeviceTraits device;                             // chooses the kernels
  std::shared_ptr<const CudaOperators> operators;  // of GPUs; null: LibTorch's
};

/// Rows of logits that are held at once: ModelSetup's, or a default by device.
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

  /// Initial values: LoRA A ~ U(-1/sqrt(in), 1/sqrt(in)) (PEFT's default), B = 0, score from the weights or N(0,
  /// initializer_range); in full-parameter mode the loaded weights. A pure function of seed and slot name. Shapes:
  /// params [layout().total_elements] fp32; padding is zeroed.
  virtual void initialize(at::Tensor& params, uint64_t seed) const = 0;

  /// One micro-batch in training mode: loss sum, and gradients of (loss sum * loss_scale) OVERWRITTEN into `grads`.
  /// Shapes: params, grads [layout().total_elements] fp32 on the model's device.
  virtual LossSum forward_backward(const Batch& batch, const at::Tensor& params, at::Tensor& grads,
                                   const DropoutKey& key, double loss_scale) = 0;

  /// Told while gradients are computed, from the last block to the first: those at `begin_elements` and after are
  /// final. May be empty.
  using GradientsReady = std::function<void(int64_t begin_elements)>;

  /// The same in two parts, for devices that record kernels and play them again.
  struct MicroStep {
    /// Micro-steps of one text enqueue the same kernels on the same memory, given the same buffers. Empty: record
    /// nothing, each micro-step has kernels of its own.
    std::string shape;
    std::function<void()> begin;  // before each enqueue, and never recorded: sets the seed of native masks
    std::function<void(const GradientsReady& ready)> enqueue;  // computes; valid until the next one is prepared
    LossSum loss;                                              // `loss.loss` is written by enqueue
  };
  /// The tensors that a micro-step reads, in host memory, page-locked where they will travel to `device`.
  /// Thread: any. Throws: Error(kData) naming the sample when a length, an id or a label is out of range.
  virtual std::shared_ptr<const MicroBatch> pack(const Batch& batch, const at::Device& device) const = 0;
  /// Copies a packed batch to where enqueue reads it.
  virtual MicroStep prepare(const MicroBatch& batch, const at::Tensor& params, at::Tensor& grads, const DropoutKey& key,
                            double loss_scale) = 0;

  /// One batch in evaluation mode (no dropout). The loss is undefined without targets.
  virtual EvalOutput evaluate(const Batch& batch, const at::Tensor& params) = 0;

  /// All logits, causal LM, for tests and generation without a cache: [N, V] fp32.
  virtual at::Tensor lm_logits(const Batch& batch, const at::Tensor& params) = 0;

  /// Incremental decoding for one sequence of up to `max_tokens`. Keys and values of earlier tokens are kept.
  class Decoder {
   public:
    virtual ~Decoder() = default;
    /// Feeds tokens ([n] at the next positions) and returns the logits after the last: [V] fp32, host memory.
    virtual at::Tensor feed(const std::vector<int64_t>& ids) = 0;
    virtual int64_t position() const = 0;
  };
  virtual std::unique_ptr<Decoder> make_decoder(const at::Tensor& params, int64_t max_tokens) = 0;

  /// Floating-point operations of one trained token at sequence length T (forward + backward to activations, frozen
  /// matrices counted as 4N, attention causal and windowed), for model TFLOP/s.
  virtual double training_flops_per_token(int64_t length) const = 0;
};

}  // namespace neoloom::model
