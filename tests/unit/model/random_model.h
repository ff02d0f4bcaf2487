// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "model/gpt_neo/weights.h"
#include "model/model.h"

namespace neoloom::model::testing {

inline at::Tensor random(const std::vector<int64_t>& shape, double deviation, uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed)).mul_(deviation);
}

/// Three blocks (global, local, global), 2 heads of 8, window 4, 97 words, 300 positions.
inline GptNeoConfig tiny_config() {
  GptNeoConfig config;
  config.vocab_size = 97;
  config.max_position_embeddings = 300;
  config.hidden_size = 16;
  config.num_layers = 3;
  config.num_heads = 2;
  config.intermediate_size = 64;
  config.window_size = 4;
  config.layer_is_local = {false, true, false};
  return config;
}

inline LoraOptions lora_options(int64_t r, double alpha, double dropout, std::vector<std::string> targets) {
  LoraOptions options;
  options.r = r;
  options.lora_alpha = alpha;
  options.lora_dropout = dropout;
  options.target_modules = {std::move(targets)};
  return options;
}

/// Adapters on all six linears.
inline ModelSetup tiny_setup(Head head, double dropout = 0.0) {
  ModelSetup setup;
  setup.config = tiny_config();
  setup.head = head;
  setup.num_labels = head == Head::kCausalLm ? 0 : 3;
  setup.lora = lora_options(4, 8, dropout, {"q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"});
  return setup;
}

inline std::shared_ptr<Weights> random_weights(const GptNeoConfig& config, at::ScalarType dtype) {
  uint64_t seed = 1;
  const auto make = [&](const std::vector<int64_t>& shape) { return random(shape, 0.2, seed++).to(dtype); };
  const int64_t h = config.hidden_size;
  const int64_t ff = config.intermediate_size;
  auto weights = std::make_shared<Weights>();
  weights->wte = make({config.vocab_size, h});
  weights->wpe = make({config.max_position_embeddings, h});
  weights->lm_head = weights->wte;
  weights->ln_f.weight = make({h}).add_(1);
  weights->ln_f.bias = make({h});
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    BlockWeights block;
    block.ln_1.weight = make({h}).add_(1);
    block.ln_2.weight = make({h}).add_(1);
    for (at::Tensor* bias :
         {&block.ln_1.bias, &block.ln_2.bias, &block[LinearSite::kOutProj].bias, &block[LinearSite::kCProj].bias}) {
      *bias = make({h});
    }
    for (at::Tensor* square : {&block[LinearSite::kQProj].weight, &block[LinearSite::kKProj].weight,
                               &block[LinearSite::kVProj].weight, &block[LinearSite::kOutProj].weight}) {
      *square = make({h, h});
    }
    block[LinearSite::kCFc].weight = make({ff, h});
    block[LinearSite::kCFc].bias = make({ff});
    block[LinearSite::kCProj].weight = make({h, ff});
    weights->blocks.push_back(block);
  }
  return weights;
}

/// Samples of these lengths. The ids of one depend on its length only, so that other batches hold the same samples.
inline Batch random_batch(const std::vector<int64_t>& lengths, int64_t vocab) {
  Batch batch;
  batch.cu_seqlens.push_back(0);
  for (const int64_t length : lengths) {
    const auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(length));
    const at::Tensor ids = at::randint(vocab, {length}, generator, at::kLong);
    batch.ids.insert(batch.ids.end(), ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + length);
    batch.cu_seqlens.push_back(static_cast<int64_t>(batch.ids.size()));
    batch.sample_ids.push_back(1000 + length);
  }
  return batch;
}

/// Every token but a sample's first is a target.
inline Batch with_lm_labels(Batch batch) {
  batch.has_targets = true;
  for (size_t sample = 1; sample < batch.cu_seqlens.size(); ++sample) {
    for (int64_t row = batch.cu_seqlens[sample - 1]; row + 1 < batch.cu_seqlens[sample]; ++row) {
      batch.target_rows.push_back(row);
      batch.targets.push_back(batch.ids[static_cast<size_t>(row) + 1]);
    }
  }
  return batch;
}

inline Batch with_class_labels(Batch batch, int64_t classes) {
  batch.has_targets = true;
  for (size_t sample = 1; sample < batch.cu_seqlens.size(); ++sample) {
    batch.targets.push_back((batch.cu_seqlens[sample] - batch.cu_seqlens[sample - 1]) % classes);
  }
  return batch;
}

inline Batch with_random_flags(Batch batch, int64_t labels, uint64_t seed) {
  batch.has_targets = true;
  const auto samples = static_cast<int64_t>(batch.sample_ids.size());
  const at::Tensor flags = at::randint(2, {samples, labels}, at::detail::createCPUGenerator(seed)).to(at::kFloat);
  batch.multi_labels.assign(flags.const_data_ptr<float>(), flags.const_data_ptr<float>() + flags.numel());
  return batch;
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.contiguous();
  const at::Tensor y = b.contiguous();
  return x.sizes() == y.sizes() && std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

/// max|a - b| / max|b|
inline double distance(const at::Tensor& a, const at::Tensor& b) {
  return a.sub(b).abs().max().item<double>() / b.abs().max().item<double>();
}

struct Trial {
  at::Tensor grads;
  double loss = 0;
  int64_t count = 0;
};

inline Trial train_once(Model& model, const Batch& batch, const at::Tensor& params, DropoutKey key = {},
                        double scale = 1.0) {
  Trial trial;
  trial.grads = at::empty({model.layout().total_elements}, at::TensorOptions().dtype(at::kFloat)).fill_(7.0);
  const LossSum sum = model.forward_backward(batch, params, trial.grads, key, scale);
  trial.loss = sum.loss.item<double>();
  trial.count = sum.count;
  return trial;
}

/// All adapter values random, B too.
inline at::Tensor random_params(const Model& model) {
  at::Tensor params = at::zeros({model.layout().total_elements}, at::TensorOptions().dtype(at::kFloat));
  uint64_t seed = 500;
  for (const ParameterSlot& slot : model.layout().slots) {
    params.narrow(0, slot.offset_elements, slot.elements()).copy_(random({slot.elements()}, 0.2, seed++));
  }
  return params;
}

}  // namespace neoloom::model::testing
