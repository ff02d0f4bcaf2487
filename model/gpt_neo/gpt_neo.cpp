// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/gpt_neo.h"

#include <ATen/Context.h>
#include <ATen/ops/zeros.h>

#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "model/flops.h"
#include "model/gpt_neo/decoder.h"
#include "model/gpt_neo/passes.h"
#include "runtime/core/error.h"
#include "runtime/core/rng.h"

namespace neoloom::model {

namespace {

using core::ErrorKind;

/// Seeds LibTorch's own random numbers by step and micro-batch, so that they do not depend on the rank that computes
/// it.
void seed_native_masks(const DropoutKey& key, const at::Device& device) {
  uint64_t seed = core::mix64(key.seed);
  for (const int64_t part : {key.step, key.micro_batch}) seed = core::mix64(seed ^ static_cast<uint64_t>(part));
  at::Generator generator = at::globalContext().defaultGenerator(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(seed);
}

}  // namespace

std::unique_ptr<Model> Model::create(const ModelSetup& setup, std::shared_ptr<const Weights> weights) {
  core::require(weights != nullptr, ErrorKind::kInternal, "a model needs weights");
  return std::make_unique<GptNeo>(setup, std::move(weights));
}

GptNeo::GptNeo(const ModelSetup& setup, std::shared_ptr<const Weights> weights)
    : setup_(setup), builder_(setup, std::move(weights)), backend_(make_backend(setup)), norms_(!setup.device.cuda) {}

std::vector<std::string> GptNeo::kernels() const {
  const GptNeoConfig& config = setup_.config;
  const auto line = [&](const char* layers, int64_t window) {
    return fmt::format("{} layers: {}", layers, backend_->describe_attention(window));
  };
  std::vector<std::string> lines = {line("global", 0)};
  if (std::find(config.layer_is_local.begin(), config.layer_is_local.end(), true) != config.layer_is_local.end()) {
    lines.push_back(line("local", config.window_size));
  }
  if (config.attention_dropout > 0.0) {
    lines.push_back(fmt::format("training, with attention_dropout {}: batched matmuls in fp32 in all layers",
                                config.attention_dropout));
  }
  return lines;
}

void GptNeo::initialize_share(at::Tensor& params, uint64_t seed, Share share) const {
  builder_.initialize(params, seed, share);
  if (!setup_.lora || !setup_.lora->use_dora) return;
  Network network = builder_.build(params, {}, nullptr);
  set_dora_norms(network, dora_norms(network, *backend_));
  for (const Block& block : network.blocks) {
    for (const Linear& linear : block.linears) {
      if (linear.lora.dora.present()) linear.lora.dora.magnitude.copy_(linear.lora.dora.norm);
    }
  }
}

Network GptNeo::build(const at::Tensor& params, const at::Tensor& grads, const DropoutKey* dropout) {
  Network network = builder_.build(params, grads, dropout);
  if (setup_.lora && setup_.lora->use_dora) norms_.set(network, *backend_, params);
  return network;
}

MicroBatch GptNeo::packed_on(const at::Device& device, const Batch& batch) const {
  MicroBatch packed = model::pack(batch, setup_, device, {.for_device = setup_.device.cuda});
  move_to(packed, device);
  return packed;
}

GptNeo::StaticInputs& GptNeo::static_inputs_for(const std::string& shape, const MicroBatch& batch,
                                                const at::Device& device) {
  const auto known = static_inputs_.find(shape);
  if (known != static_inputs_.end()) {
    copy_into(known->second.batch, batch);
    return known->second;
  }
  StaticInputs& inputs = static_inputs_[shape];
  inputs.batch = batch;
  move_to(inputs.batch, device);
  inputs.loss = at::zeros({}, at::TensorOptions().dtype(at::kDouble).device(device));
  return inputs;
}

at::Tensor GptNeo::compute(const MicroBatch& batch, const at::Tensor& params, at::Tensor& grads, const DropoutKey& key,
                           double loss_scale, const GradientsReady& ready) {
  grads.zero_();
  const Network network = build(params, grads, &key);
  const Passes passes{setup_, network, *backend_, batch};
  Passes::Saved saved;
  // Passes the last block's output to the head without keeping it, because backward does not need it.
  HeadResult head = passes.head(passes.forward(&saved), {.gradients = true, .loss_scale = loss_scale});
  passes.backward(saved, std::move(head.d_hidden), [&](size_t layer) {
    if (ready) ready(layout().block_begin_elements[layer]);
  });
  return head.loss.loss;
}

std::shared_ptr<const MicroBatch> GptNeo::pack(const Batch& batch, const at::Device& device) const {
  core::require(batch.has_targets, ErrorKind::kInternal, "training needs targets");
  return std::make_shared<MicroBatch>(
      model::pack(batch, setup_, device, {.for_device = setup_.device.cuda, .fixed_shapes = has_fixed_shapes(setup_)}));
}

Model::MicroStep GptNeo::prepare(const MicroBatch& batch, const at::Tensor& params, at::Tensor& grads,
                                 const DropoutKey& key, double loss_scale) {
  core::require(grads.sizes() == params.sizes() && grads.scalar_type() == at::kFloat, ErrorKind::kInternal,
                "gradients: expected {} fp32 elements, found {}", params.numel(), grads.numel());
  const at::Device device = params.device();
  const bool fixed = has_fixed_shapes(setup_);
  MicroStep step;
  const bool native_masks = setup_.device.cuda && draws();
  step.begin = [native_masks, key, device] {
    if (native_masks) seed_native_masks(key, device);
  };
  const bool by_length = attention_kernel(setup_, /*window=*/0) == AttentionKernel::kCudnn;
  if (fixed) step.shape = fmt::format("{}, loss scale {}", shape_of(batch, by_length), loss_scale);
  if (!fixed) static_inputs_.clear();  // without graphs nobody reads these inputs again
  StaticInputs& inputs = static_inputs_for(step.shape, batch, device);
  step.loss = {inputs.loss, batch.targets.count};
  step.enqueue = [this, &inputs, params, grads, key, loss_scale](const GradientsReady& ready) mutable {
    inputs.loss.copy_(compute(inputs.batch, params, grads, key, loss_scale, ready));
  };
  return step;
}

LossSum GptNeo::forward_backward(const Batch& batch, const at::Tensor& params, at::Tensor& grads, const DropoutKey& key,
                                 double loss_scale) {
  const MicroStep step = prepare(*pack(batch, params.device()), params, grads, key, loss_scale);
  step.begin();
  step.enqueue({});
  return step.loss;
}

EvalOutput GptNeo::evaluate(const Batch& batch, const at::Tensor& params) {
  const MicroBatch packed = packed_on(params.device(), batch);
  const Network network = build(params, {}, nullptr);
  const Passes passes{setup_, network, *backend_, packed};
  const HeadResult head = passes.head(passes.forward(nullptr), {.counts_right = true});
  return {head.loss, head.logits, head.right};
}

at::Tensor GptNeo::lm_logits(const Batch& batch, const at::Tensor& params) {
  core::require(!classifies(), ErrorKind::kInternal, "a classifier has no logits over the vocabulary");
  const MicroBatch packed = packed_on(params.device(), batch);
  const Network network = build(params, {}, nullptr);
  const Passes passes{setup_, network, *backend_, packed};
  const at::Tensor normed = network.ln_f.forward(passes.forward(nullptr), nullptr);
  at::Tensor logits = backend_->multiply(normed, network.head);
  if (network.tokens.in_head) network.tokens.replace_logits(logits, normed);
  return logits;
}

std::unique_ptr<Model::Decoder> GptNeo::make_decoder(const at::Tensor& params, int64_t max_tokens, int64_t sequences) {
  core::require(!classifies(), ErrorKind::kUsage, "a classifier cannot generate text: expected a causal LM");
  return std::make_unique<GptNeoDecoder>(setup_, build(params, {}, nullptr), max_tokens, sequences);
}

double GptNeo::training_flops_per_token(int64_t length) const {
  return model::training_flops_per_token(setup_, layout().trainable_elements, length);
}

}  // namespace neoloom::model
